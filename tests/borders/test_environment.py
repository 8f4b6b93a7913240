"""What processes below are told by their environment: no launcher's words, their share of the cores."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpitask import environment

OF_LAUNCHERS = (
    *("PMI_RANK", "PMI_FD", "HYDI_CONTROL_FD", "MPI_LOCALNRANKS", "PALS_RANKID", "PMIX_RANK", "PMIX_SERVER_URI41"),
    *("OMPI_COMM_WORLD_SIZE", "OMPI_UNIVERSE_SIZE", "OMPI_MCA_initial_wdir", "OMPI_MCA_ess_base", "PRTE_LAUNCHED"),
)
OF_USERS = (
    *(
        "OMPI_MCA_btl_tcp_if_include",
        "OMPI_ALLOW_RUN_AS_ROOT",
        "PRTE_MCA_rmaps",
        "PMIX_MCA_gds",
        "HYDRA_IFACE",
        "OMPI_CC",
    ),
    *("MPICH_CH4_OFI_ENABLE", "I_MPI_FABRICS", "PATH", "SLURM_NTASKS"),
)


def test_launchers_words_go_and_users_settings_stay() -> None:
    before = dict.fromkeys([*OF_LAUNCHERS, *OF_USERS], "x")
    assert set(environment.without_launcher(before)) == set(OF_USERS)
    environment.scrub_launcher(before)
    assert set(before) == set(OF_USERS)


def test_an_mpiexec_in_a_slurm_job_shares_its_processors() -> None:
    assert environment.without_launcher({"SLURM_JOB_ID": "1"})["SLURM_OVERLAP"] == "1"
    assert environment.without_launcher({"SLURM_JOB_ID": "1", "SLURM_OVERLAP": "0"})["SLURM_OVERLAP"] == "0"
    assert "SLURM_OVERLAP" not in environment.without_launcher({"PATH": "/bin"})


@pytest.mark.parametrize(
    ("variables", "cores"),
    [
        ({}, 16),
        ({"SLURM_CPUS_ON_NODE": "1"}, 1),
        ({"SLURM_CPUS_ON_NODE": "64"}, 16),
        ({"SLURM_CPUS_ON_NODE": "2(x3)"}, 16),
        ({"NCPUS": "4"}, 16),
        ({"NCPUS": "4", "PBS_JOBID": "1"}, 4),
        ({"NSLOTS": "3", "NHOSTS": "1"}, 3),
        ({"NSLOTS": "3", "NHOSTS": "2"}, 16),
        ({"LSB_MCPU_HOSTS": "other 2 here.site 5"}, 5),
    ],
)
def test_cores_that_a_batch_system_allots(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], cores: int
) -> None:
    for name in ("SLURM_CPUS_ON_NODE", "NCPUS", "PBS_JOBID", "NSLOTS", "NHOSTS", "LSB_MCPU_HOSTS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(environment, "_cgroup_cores", lambda: None)
    monkeypatch.setattr("platform.node", lambda: "here")
    assert environment.allotted_cores(16) == cores


@pytest.mark.parametrize(
    ("files", "own", "cores"),
    [
        ({"a/cpu.max": "150000 100000"}, "0::/a/b", 2),
        ({"a/cpu.max": "max 100000"}, "0::/a/b", None),
        ({"cpu/a/cpu.cfs_quota_us": "50000", "cpu/a/cpu.cfs_period_us": "100000"}, "3:cpu,cpuacct:/a", 1),
        ({"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, "3:cpu,cpuacct:/a", None),
        ({}, "0::/", None),
    ],
)
def test_cores_that_a_cgroup_allots(tmp_path: Path, files: dict[str, str], own: str, cores: int | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    (tmp_path / "own").write_text(own + "\n")
    assert environment._cgroup_cores(tmp_path, tmp_path / "own") == cores


def test_threads_of_libraries_follow_the_cores_of_a_worker() -> None:
    variables: dict[str, str] = {"MKL_NUM_THREADS": "7"}
    environment.limit_threads(variables, workers=2, cores=8)
    assert variables.pop("MKL_NUM_THREADS") == "7"
    assert set(variables.values()) == {"4"}
    assert variables["OMP_NUM_THREADS"] == "4"
    users = {"OMP_NUM_THREADS": "3"}
    environment.limit_threads(users, workers=2, cores=8)
    assert users == {"OMP_NUM_THREADS": "3"}

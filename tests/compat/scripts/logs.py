import io
import logging
from pathlib import Path

import parsl
from parsl import python_app
from parsl.config import Config
from parsl.logconfigs.file import FileLogging
from parsl.logconfigs.json import JSONLogging
from parsl.logconfigs.noop import NoopLogging


@python_app
def fine():
    return 1


stream = io.StringIO()
end = parsl.set_stream_logger(stream=stream, level=logging.INFO)
end_file = parsl.set_file_logger("mine.log", level=logging.DEBUG)
with parsl.load() as dfk:
    fine().result()
    logging.getLogger("parsl.mine").info("a word")
end()
end_file()
logging.getLogger("parsl.mine").info("not heard")
print("a word" in stream.getvalue(), "not heard" in stream.getvalue(), "exec_done" in Path("mine.log").read_text())
print("a word" in Path(dfk.run_dir, "parsl.log").read_text())
for wanted, name in ((FileLogging(), "parsl.log"), (JSONLogging(), "parsl.jsonlog"), (NoopLogging(), ""), (False, "")):
    with parsl.load(Config(initialize_logging=wanted)) as dfk:
        fine().result()
    files = sorted(path.name for path in Path(dfk.run_dir).iterdir())
    print(files, bool(name) and "exec_done" in Path(dfk.run_dir, name).read_text())

# prints:
# True False True
# True
# ['parsl.log'] True
# ['parsl.jsonlog'] True
# [] False
# [] False

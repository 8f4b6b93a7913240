#include "ours.h"

#include <sys/mman.h>
#include <unistd.h>

#include "atomic.h"

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif
#define PAGE_BYTES 4096

void mti_ours_init(mt_ours *ours) {
    *ours = (mt_ours){NULL, (int32_t)getpid()};
    void *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return;
    if (madvise(page, PAGE_BYTES, MADV_WIPEONFORK) != 0) {
        (void)munmap(page, PAGE_BYTES);
        return;
    }
    ours->word = page;
    mt_store_relaxed(ours->word, 1);
}

void mti_ours_take(mt_ours *ours) {
    ours->pid = (int32_t)getpid();
    if (ours->word != NULL) mt_store_relaxed(ours->word, 1);
}

bool mti_is_ours(const mt_ours *ours) {
    return ours->word != NULL ? mt_load_relaxed(ours->word) != 0 : ours->pid == (int32_t)getpid();
}

void mti_ours_clean_up(mt_ours *ours) {
    if (ours->word != NULL) (void)munmap(ours->word, PAGE_BYTES);
    ours->word = NULL;
}

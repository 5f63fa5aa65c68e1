/* Weights of all layers lie together, in pages as large as the system has: one row reads them all, and with pages of 4 kB
 * a third to a half of that time goes to finding where they lie. */
#include "shim.h"
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { PAGE = 2 << 20, LINE = 64, LARGE = 128 << 10 /* bytes of a block, at least: less is never waited for */ };

/* Of whole pages; it goes when the last block of it does. Each block has a line before it that tells its own. */
typedef struct { size_t size, used, blocks; } Region;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Region *newest; /* of those with blocks */

static Region *with_room(size_t size) {
  if (newest && newest->size - newest->used >= size) return newest;
  size_t all = (size + LINE + PAGE - 1) / PAGE * PAGE;
  Region *made = aligned_alloc(PAGE, all);
  if (!made) return NULL;
#ifdef MADV_HUGEPAGE
  madvise(made, all, MADV_HUGEPAGE);
#endif
  *made = (Region){all, LINE, 0};
  return newest = made;
}

void *keep(size_t bytes) {
  size_t size = padded(bytes) + LINE;
  Region *region = NULL;
  char *block = NULL;
  if (bytes < LARGE) block = aligned_alloc(LINE, size);
  else {
    pthread_mutex_lock(&lock);
    if ((region = with_room(size))) block = (char *)region + region->used, region->used += size, region->blocks++;
    pthread_mutex_unlock(&lock);
  }
  if (!block) return NULL;
  *(Region **)block = region;
  return block + LINE;
}

void let_loose(void *kept) {
  if (!kept) return;
  char *block = (char *)kept - LINE;
  Region *region = *(Region **)block;
  if (!region) { free(block); return; }
  pthread_mutex_lock(&lock);
  if (!--region->blocks) {
    if (region == newest) newest = NULL;
    free(region);
  }
  pthread_mutex_unlock(&lock);
}

// What a policy has of <stdlib.h>. Memory lives as long as the call: `free` takes back the newest block only.
#ifndef CARILLON_STDLIB_H
#define CARILLON_STDLIB_H

#include <stddef.h>

void *malloc(size_t size);
void *calloc(size_t count, size_t size);
void *realloc(void *block, size_t size);
void free(void *block);

// Ends the call as a fault of the plugin.
_Noreturn void abort(void);

#endif

// The little of a libc that a policy needs.
//
// An instance lives for one call, so memory is handed out and hardly taken back: the newest block can grow, shrink and be freed in
// place, every other stays until the instance is dropped. An arena that the instance begins with is used up before memory grows, since
// growing costs the server two system calls.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define ALIGNMENT 16
#define PAGE 65536u
#define ARENA (256 * 1024)

// Before each block. As long as the alignment.
typedef struct {
    size_t size;
    unsigned char unused[ALIGNMENT - sizeof(size_t)];
} block_head;

_Static_assert(sizeof(block_head) == ALIGNMENT, "a block behind it is aligned");

static _Alignas(ALIGNMENT) unsigned char arena[ARENA];

// What is free: `next` up to `end`, both aligned. `last` is the block that was handed out last.
static unsigned char *next = arena;
static unsigned char *end = arena + ARENA;
static unsigned char *last;

// Adds at least `size` bytes to what is free.
static _Bool grow(size_t size) {
    size_t pages = size / PAGE + 1;
    size_t before = __builtin_wasm_memory_grow(0, pages);
    // The last page of the address space is not used, so that no end is 0.
    if (before == SIZE_MAX || before + pages >= SIZE_MAX / PAGE) {
        return 0;
    }
    unsigned char *start = (unsigned char *)(before * PAGE);
    if (start != end) {
        next = start;
        last = NULL;
    }
    end = start + pages * PAGE;
    return 1;
}

// The room that a block of `size` takes; 0 if there is no such block.
static size_t room_of(size_t size) {
    if (size > PTRDIFF_MAX - 2 * ALIGNMENT) {
        return 0;
    }
    return (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT + sizeof(block_head);
}

void *malloc(size_t size) {
    size_t room = room_of(size);
    if (room == 0 || (room > (size_t)(end - next) && !grow(room))) {
        return NULL;
    }
    ((block_head *)next)->size = size;
    last = next + sizeof(block_head);
    next += room;
    return last;
}

void free(void *block) {
    if (block != NULL && block == last) {
        next = last - sizeof(block_head);
        last = NULL;
    }
}

void *calloc(size_t count, size_t size) {
    size_t all;
    if (__builtin_mul_overflow(count, size, &all)) {
        return NULL;
    }
    void *block = malloc(all);
    return block == NULL ? NULL : memset(block, 0, all);
}

void *realloc(void *block, size_t size) {
    if (block == NULL) {
        return malloc(size);
    }
    block_head *head = (block_head *)block - 1;
    size_t room = room_of(size);
    if (block == last && room != 0 && room <= (size_t)(end - (unsigned char *)head)) {
        head->size = size;
        next = (unsigned char *)head + room;
        return block;
    }
    if (size <= head->size) {
        return block;
    }
    void *moved = malloc(size);
    return moved == NULL ? NULL : memcpy(moved, block, head->size);
}

void abort(void) {
    __builtin_trap();
}

void *memcpy(void *restrict to, const void *restrict from, size_t size) {
    return __builtin_memcpy(to, from, size);
}

void *memmove(void *to, const void *from, size_t size) {
    return __builtin_memmove(to, from, size);
}

void *memset(void *block, int byte, size_t size) {
    return __builtin_memset(block, byte, size);
}

int memcmp(const void *one, const void *other, size_t size) {
    const unsigned char *a = one, *b = other;
    for (size_t i = 0; i < size; i++) {
        if (a[i] != b[i]) {
            return a[i] < b[i] ? -1 : 1;
        }
    }
    return 0;
}

void *memchr(const void *block, int byte, size_t size) {
    const unsigned char *bytes = block;
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] == (unsigned char)byte) {
            return (void *)(bytes + i);
        }
    }
    return NULL;
}

size_t strlen(const char *text) {
    size_t length = 0;
    while (text[length] != '\0') {
        length++;
    }
    return length;
}

int strncmp(const char *one, const char *other, size_t size) {
    for (size_t i = 0; i < size; i++) {
        unsigned char a = (unsigned char)one[i], b = (unsigned char)other[i];
        if (a != b || a == '\0') {
            return (a > b) - (a < b);
        }
    }
    return 0;
}

int strcmp(const char *one, const char *other) {
    return strncmp(one, other, SIZE_MAX);
}

char *strchr(const char *text, int byte) {
    for (;; text++) {
        if (*text == (char)byte) {
            return (char *)text;
        }
        if (*text == '\0') {
            return NULL;
        }
    }
}

// Texts that are put together, for answers and for log lines. Memory is taken as they grow; without any left the call ends as a fault.
#ifndef CARILLON_TEXT_H
#define CARILLON_TEXT_H

#include <stddef.h>
#include <stdint.h>

// Begins as `text it = {0};`. There is no 0 behind the last byte. An answer may keep the bytes: they were made by `malloc`.
typedef struct {
    uint8_t *bytes;
    size_t length;
} text;

void text_add(text *to, const char *more);
void text_add_bytes(text *to, const void *bytes, size_t length);

// In decimal digits.
void text_add_number(text *to, uint64_t number);

// In hexadecimal digits, two for each byte.
void text_add_hex(text *to, const void *bytes, size_t length);

#endif

// Texts that are put together.

#include <stdlib.h>
#include <string.h>
#include <text.h>

void text_add_bytes(text *to, const void *bytes, size_t length) {
    size_t all;
    if (length == 0) {
        return;
    }
    if (__builtin_add_overflow(to->length, length, &all) || (to->bytes = realloc(to->bytes, all)) == NULL) {
        abort();
    }
    memcpy(to->bytes + to->length, bytes, length);
    to->length = all;
}

void text_add(text *to, const char *more) {
    text_add_bytes(to, more, strlen(more));
}

void text_add_number(text *to, uint64_t number) {
    char digits[20];
    size_t first = sizeof digits;
    do {
        digits[--first] = (char)('0' + number % 10);
        number /= 10;
    } while (number != 0);
    text_add_bytes(to, digits + first, sizeof digits - first);
}

void text_add_hex(text *to, const void *bytes, size_t length) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < length; i++) {
        uint8_t byte = ((const uint8_t *)bytes)[i];
        char pair[2] = {digits[byte >> 4], digits[byte & 15]};
        text_add_bytes(to, pair, sizeof pair);
    }
}

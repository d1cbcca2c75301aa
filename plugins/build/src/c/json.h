// Reads JSON: what a policy needs for its config, or for a body.
//
// A value is a part of the text that it was read from; nothing is copied, and no memory is taken. What is not there, such as a member
// that an object lacks, is a value that does not exist; asking it for anything says no. Numbers are whole: `json_integer` says no to the
// others.
#ifndef CARILLON_JSON_H
#define CARILLON_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *at; // NULL: there is no such value
    const char *end;
} json_value;

// A text that is one JSON value (RFC 8259), with no more than 64 levels; if it is anything else, the value does not exist. UTF-8 is not
// checked: the server's strings are.
json_value json_read(const void *text, size_t length);

bool json_exists(json_value value);

// The member of an object, the last if there are several of that name.
json_value json_member(json_value object, const char *name);

// The items of an array, from 0 on.
json_value json_item(json_value array, size_t index);

// Whether it is that string.
bool json_is(json_value value, const char *text);

// Writes a string, decoded and with a 0 behind it. Says no, with `out` empty, if it is no string, has a 0 in it, or does not fit.
bool json_text(json_value value, char *out, size_t size);

bool json_integer(json_value value, int64_t *out);

bool json_boolean(json_value value, bool *out);

#endif

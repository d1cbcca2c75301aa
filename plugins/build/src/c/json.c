// A reader of JSON by recursive descent. Every step looks whether there is a next byte.

#include <json.h>
#include <string.h>

#define DEPTH 64

static const json_value nothing = {NULL, NULL};

static bool skip_value(json_value *rest, int depth);

static void skip_blanks(json_value *rest) {
    while (rest->at < rest->end && (*rest->at == ' ' || *rest->at == '\t' || *rest->at == '\n' || *rest->at == '\r')) {
        rest->at++;
    }
}

// Steps over `byte` if it comes next.
static bool take(json_value *rest, char byte) {
    if (rest->at < rest->end && *rest->at == byte) {
        rest->at++;
        return true;
    }
    return false;
}

static bool take_word(json_value *rest, const char *word) {
    size_t length = strlen(word);
    if ((size_t)(rest->end - rest->at) < length || memcmp(rest->at, word, length) != 0) {
        return false;
    }
    rest->at += length;
    return true;
}

static bool take_digit(json_value *rest) {
    if (rest->at < rest->end && *rest->at >= '0' && *rest->at <= '9') {
        rest->at++;
        return true;
    }
    return false;
}

static bool take_digits(json_value *rest) {
    if (!take_digit(rest)) {
        return false;
    }
    while (take_digit(rest)) {
    }
    return true;
}

static bool skip_number(json_value *rest) {
    take(rest, '-');
    if (!take(rest, '0') && !take_digits(rest)) {
        return false;
    }
    if (take(rest, '.') && !take_digits(rest)) {
        return false;
    }
    if (take(rest, 'e') || take(rest, 'E')) {
        if (!take(rest, '+')) {
            take(rest, '-');
        }
        return take_digits(rest);
    }
    return true;
}

// The four hexadecimal digits of an escape.
static bool take_unit(json_value *rest, uint32_t *unit) {
    *unit = 0;
    for (int i = 0; i < 4; i++) {
        if (rest->at >= rest->end) {
            return false;
        }
        char digit = *rest->at++;
        if (digit >= '0' && digit <= '9') {
            *unit = *unit * 16 + (uint32_t)(digit - '0');
        } else if ((digit | 0x20) >= 'a' && (digit | 0x20) <= 'f') {
            *unit = *unit * 16 + (uint32_t)((digit | 0x20) - 'a') + 10;
        } else {
            return false;
        }
    }
    return true;
}

// Writes a character in UTF-8; its length.
static int encode(uint32_t point, char out[4]) {
    if (point < 0x80) {
        out[0] = (char)point;
        return 1;
    }
    int more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    static const unsigned char heads[4] = {0, 0xc0, 0xe0, 0xf0};
    for (int i = more; i > 0; i--) {
        out[i] = (char)(0x80 | (point & 0x3f));
        point >>= 6;
    }
    out[0] = (char)(heads[more] | point);
    return more + 1;
}

// What a backslash stands before; the length of what it means, or -1.
static int take_escape(json_value *rest, char out[4]) {
    if (rest->at >= rest->end) {
        return -1;
    }
    char kind = *rest->at++;
    static const char kinds[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    const char *found = kind == '\0' ? NULL : strchr(kinds, kind);
    if (found != NULL) {
        out[0] = meanings[found - kinds];
        return 1;
    }
    uint32_t unit, low;
    if (kind != 'u' || !take_unit(rest, &unit) || (unit >= 0xdc00 && unit < 0xe000)) {
        return -1;
    }
    if (unit >= 0xd800 && unit < 0xdc00) {
        if (!take(rest, '\\') || !take(rest, 'u') || !take_unit(rest, &low) || low < 0xdc00 || low >= 0xe000) {
            return -1;
        }
        unit = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
    }
    return encode(unit, out);
}

// The next byte, or escaped character, of a string whose first quotation mark is behind us: its length, 0 at the end, -1 if it is none.
static int take_character(json_value *rest, char out[4]) {
    if (rest->at >= rest->end || (unsigned char)*rest->at < 0x20) {
        return -1;
    }
    char byte = *rest->at++;
    if (byte == '"') {
        return 0;
    }
    if (byte == '\\') {
        return take_escape(rest, out);
    }
    out[0] = byte;
    return 1;
}

// Steps over a string. Most of its bytes need no second look.
static bool skip_string(json_value *rest) {
    char out[4];
    int length;
    if (!take(rest, '"')) {
        return false;
    }
    do {
        const unsigned char *at = (const unsigned char *)rest->at, *end = (const unsigned char *)rest->end;
        while (at < end && *at >= 0x20 && *at != '"' && *at != '\\') {
            at++;
        }
        rest->at = (const char *)at;
    } while ((length = take_character(rest, out)) > 0);
    return length == 0;
}

// The name of a member and the colon behind it.
static bool skip_name(json_value *rest) {
    skip_blanks(rest);
    if (!skip_string(rest)) {
        return false;
    }
    skip_blanks(rest);
    return take(rest, ':');
}

// What is between two brackets, which are behind us and before us: members, or items.
static bool skip_entries(json_value *rest, bool named, char close, int depth) {
    skip_blanks(rest);
    if (take(rest, close)) {
        return true;
    }
    do {
        if ((named && !skip_name(rest)) || !skip_value(rest, depth)) {
            return false;
        }
    } while (take(rest, ','));
    return take(rest, close);
}

// A value with the blanks around it.
static bool skip_value(json_value *rest, int depth) {
    bool good;
    skip_blanks(rest);
    if (depth == 0 || rest->at >= rest->end) {
        return false;
    }
    switch (*rest->at) {
    case '{':
    case '[':
        rest->at++;
        good = rest->at[-1] == '{' ? skip_entries(rest, true, '}', depth - 1) : skip_entries(rest, false, ']', depth - 1);
        break;
    case '"':
        good = skip_string(rest);
        break;
    case 't':
        good = take_word(rest, "true");
        break;
    case 'f':
        good = take_word(rest, "false");
        break;
    case 'n':
        good = take_word(rest, "null");
        break;
    default:
        good = skip_number(rest);
    }
    skip_blanks(rest);
    return good;
}

// Steps over a value and returns it without the blanks before it.
static json_value next_value(json_value *rest) {
    skip_blanks(rest);
    json_value value = {rest->at, rest->at};
    if (!skip_value(rest, DEPTH)) {
        return nothing;
    }
    value.end = rest->at;
    return value;
}

json_value json_read(const void *text, size_t length) {
    if (text == NULL) {
        return nothing;
    }
    json_value rest = {text, (const char *)text + length};
    json_value value = next_value(&rest);
    return rest.at == rest.end ? value : nothing;
}

bool json_exists(json_value value) {
    return value.at != NULL;
}

json_value json_member(json_value object, const char *name) {
    json_value found = nothing;
    if (!json_exists(object) || !take(&object, '{')) {
        return nothing;
    }
    do {
        skip_blanks(&object);
        json_value key = {object.at, object.end};
        if (!skip_name(&object)) {
            return found;
        }
        json_value value = next_value(&object);
        if (json_is(key, name)) {
            found = value;
        }
    } while (take(&object, ','));
    return found;
}

json_value json_item(json_value array, size_t index) {
    if (!json_exists(array) || !take(&array, '[')) {
        return nothing;
    }
    do {
        json_value item = next_value(&array);
        if (index-- == 0 || !json_exists(item)) {
            return item;
        }
    } while (take(&array, ','));
    return nothing;
}

bool json_is(json_value value, const char *text) {
    char out[4];
    int length;
    if (!json_exists(value) || !take(&value, '"')) {
        return false;
    }
    while ((length = take_character(&value, out)) > 0) {
        // A 0 would end both, and there is nothing behind that of `text`.
        if (out[0] == '\0' || strncmp(text, out, (size_t)length) != 0) {
            return false;
        }
        text += length;
    }
    return length == 0 && *text == '\0';
}

bool json_text(json_value value, char *out, size_t size) {
    char character[4];
    int length = -1;
    size_t used = 0;
    if (size == 0) {
        return false;
    }
    if (json_exists(value) && take(&value, '"')) {
        while ((length = take_character(&value, character)) > 0) {
            if (character[0] == '\0' || (size_t)length >= size - used) {
                length = -1;
                break;
            }
            memcpy(out + used, character, (size_t)length);
            used += (size_t)length;
        }
    }
    out[length == 0 ? used : 0] = '\0';
    return length == 0;
}

bool json_integer(json_value value, int64_t *out) {
    if (!json_exists(value)) {
        return false;
    }
    bool negative = take(&value, '-');
    uint64_t number = 0, most = (uint64_t)INT64_MAX + negative;
    const char *first = value.at;
    while (value.at < value.end && *value.at >= '0' && *value.at <= '9') {
        uint64_t digit = (uint64_t)(*value.at++ - '0');
        if (number > (most - digit) / 10) {
            return false;
        }
        number = number * 10 + digit;
    }
    bool whole = value.at > first;
    skip_blanks(&value);
    if (!whole || value.at != value.end) {
        return false;
    }
    *out = (int64_t)(negative ? -number : number);
    return true;
}

bool json_boolean(json_value value, bool *out) {
    bool yes = json_exists(value) && take_word(&value, "true");
    if (!yes && !(json_exists(value) && take_word(&value, "false"))) {
        return false;
    }
    *out = yes;
    return true;
}

// A retry policy for receivers that somebody looks after: no attempt outside of business hours, none before the receiver wants one.

#include <json.h>
#include <stdlib.h>
#include <string.h>

#include "policy.h"

#define SECOND_MS 1000
#define MINUTE_MS (60 * SECOND_MS)
#define DAY_MS (24 * 60 * MINUTE_MS)

// Longer than anybody waits. Sums of it and of times do not overflow.
#define LONGEST_MS (100 * 366 * (uint64_t)DAY_MS)

// 1970-01-01 was a Thursday.
#define FIRST_DAY 3

static const char *const days[7] = {"mon", "tue", "wed", "thu", "fri", "sat", "sun"};

static const char schema[] =
    "{\"type\": \"object\", \"additionalProperties\": false, \"properties\": {"
    "\"utc_offset_minutes\": {\"type\": \"integer\", \"minimum\": -840, \"maximum\": 840, \"default\": 0,"
    " \"description\": \"How far local time is ahead of UTC. It does not follow daylight saving time.\"},"
    "\"days\": {\"type\": \"array\", \"minItems\": 1, \"uniqueItems\": true,"
    " \"items\": {\"enum\": [\"mon\", \"tue\", \"wed\", \"thu\", \"fri\", \"sat\", \"sun\"]},"
    " \"default\": [\"mon\", \"tue\", \"wed\", \"thu\", \"fri\"]},"
    "\"from\": {\"type\": \"string\", \"pattern\": \"^([01][0-9]|2[0-3]):[0-5][0-9]$\", \"default\": \"09:00\"},"
    "\"to\": {\"type\": \"string\", \"pattern\": \"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$\", \"default\": \"17:00\","
    " \"description\": \"The first minute in which nothing is tried any more.\"},"
    "\"base_seconds\": {\"type\": \"integer\", \"minimum\": 0, \"maximum\": 86400, \"default\": 60,"
    " \"description\": \"The wait after the first attempt; it doubles with each.\"},"
    "\"cap_seconds\": {\"type\": \"integer\", \"minimum\": 0, \"maximum\": 86400, \"default\": 3600,"
    " \"description\": \"No wait is longer, but for business hours and Retry-After.\"},"
    "\"max_attempts\": {\"type\": \"integer\", \"minimum\": 1, \"maximum\": 1000, \"default\": 10}}}";

typedef struct {
    int64_t offset_ms;
    bool open[7];
    int64_t from_ms; // From midnight, local time.
    int64_t to_ms;
    int64_t base_ms;
    int64_t cap_ms;
    int64_t max_attempts;
} settings;

// The strings of an answer are given away, so they must be copies.
static void say(policy_string_t *to, const char *text) {
    policy_string_dup(to, text);
}

// The time of day `HH:MM` in milliseconds, or `otherwise` if the setting is not there; -1 if it is no time.
static int64_t time_of_day(json_value value, int64_t otherwise) {
    char text[6];
    if (!json_exists(value)) {
        return otherwise;
    }
    if (!json_text(value, text, sizeof text) || strlen(text) != 5 || text[2] != ':') {
        return -1;
    }
    for (int i = 0; i < 5; i++) {
        if (i != 2 && (text[i] < '0' || text[i] > '9')) {
            return -1;
        }
    }
    int hours = (text[0] - '0') * 10 + (text[1] - '0'), minutes = (text[3] - '0') * 10 + (text[4] - '0');
    return (hours * 60 + minutes) * (int64_t)MINUTE_MS;
}

static int64_t integer(json_value config, const char *name, int64_t otherwise) {
    json_integer(json_member(config, name), &otherwise);
    return otherwise;
}

static void read_days(json_value value, bool open[7]) {
    for (int day = 0; day < 7; day++) {
        open[day] = !json_exists(value) && day < 5;
        for (size_t i = 0; json_exists(json_item(value, i)); i++) {
            open[day] = open[day] || json_is(json_item(value, i), days[day]);
        }
    }
}

// Reads a config that satisfies the schema; NULL, or a sentence about what is wrong all the same.
static const char *read_settings(policy_string_t *config, settings *to) {
    json_value json = json_read(config->ptr, config->len);
    to->offset_ms = integer(json, "utc_offset_minutes", 0) * MINUTE_MS;
    read_days(json_member(json, "days"), to->open);
    to->from_ms = time_of_day(json_member(json, "from"), 9 * 60 * MINUTE_MS);
    to->to_ms = time_of_day(json_member(json, "to"), 17 * 60 * MINUTE_MS);
    to->base_ms = integer(json, "base_seconds", 60) * SECOND_MS;
    to->cap_ms = integer(json, "cap_seconds", 3600) * SECOND_MS;
    to->max_attempts = integer(json, "max_attempts", 10);
    if (to->from_ms < 0 || to->from_ms >= to->to_ms) {
        return "`from` must be before `to`, on the same day.";
    }
    if (to->base_ms > to->cap_ms) {
        return "`base_seconds` must not be more than `cap_seconds`.";
    }
    return NULL;
}

// How long the receiver asked to be left alone; 0 if it did not.
static uint64_t asked_ms(const exports_carillon_policy_retry_attempt_t *attempt) {
    static const char name[] = "retry-after-ms";
    uint64_t asked = 0;
    for (size_t i = 0; i < attempt->attributes.len; i++) {
        const carillon_policy_types_attribute_t *attribute = &attempt->attributes.ptr[i];
        if (attribute->key.len != strlen(name) || memcmp(attribute->key.ptr, name, strlen(name)) != 0) {
            continue;
        }
        for (size_t k = 0; k < attribute->value.len && asked < LONGEST_MS; k++) {
            uint8_t digit = attribute->value.ptr[k];
            if (digit < '0' || digit > '9') {
                policy_string_t line;
                say(&line, "the attribute retry-after-ms is not a number of milliseconds");
                carillon_policy_log_write(CARILLON_POLICY_LOG_LEVEL_WARN, &line);
                return 0;
            }
            asked = asked * 10 + (uint64_t)(digit - '0');
        }
    }
    return asked < LONGEST_MS ? asked : LONGEST_MS;
}

// base, 2 * base, 4 * base, ... but no more than the cap.
static uint64_t backoff_ms(const settings *with, uint32_t number) {
    int64_t delay = with->base_ms;
    for (uint32_t i = 1; i < number && delay < with->cap_ms; i++) {
        delay *= 2;
    }
    return (uint64_t)(delay < with->cap_ms ? delay : with->cap_ms);
}

// The first time from `at` on that is in business hours. Both are milliseconds since 1970, UTC.
static int64_t opening(const settings *with, int64_t at) {
    int64_t local = at + with->offset_ms;
    int64_t day = local / DAY_MS, time = local % DAY_MS;
    for (int64_t later = 0; later <= 7; later++) {
        if (!with->open[(FIRST_DAY + day + later) % 7] || (later == 0 && time >= with->to_ms)) {
            continue;
        }
        int64_t begins = later == 0 && time > with->from_ms ? time : with->from_ms;
        return (day + later) * DAY_MS + begins - with->offset_ms;
    }
    return at;
}

void exports_carillon_policy_meta_describe(exports_carillon_policy_meta_description_t *it) {
    say(&it->name, "retry-business-hours");
    say(&it->version, "0.1.0");
    say(&it->summary, "Waits longer each time, and tries again in business hours only.");
    say(&it->config_schema, schema);
}

// Returns whether the config is good.
bool exports_carillon_policy_meta_check(policy_string_t *config, policy_string_t *error) {
    settings with;
    const char *wrong = read_settings(config, &with);
    if (wrong != NULL) {
        say(error, wrong);
    }
    return wrong == NULL;
}

// Returns whether there is a decision; if not, there is a failure.
bool exports_carillon_policy_retry_next(exports_carillon_policy_retry_attempt_t *attempt, policy_string_t *config,
                                        exports_carillon_policy_retry_verdict_t *verdict,
                                        exports_carillon_policy_retry_list_past_t *history,
                                        exports_carillon_policy_retry_decision_t *decision,
                                        exports_carillon_policy_retry_failure_t *failure) {
    settings with;
    const char *wrong = read_settings(config, &with);
    if (wrong != NULL) {
        failure->blame = CARILLON_POLICY_TYPES_BLAME_CONFIG;
        say(&failure->code, "bad-config");
        say(&failure->message, wrong);
        return false;
    }
    if (attempt->number >= with.max_attempts) {
        decision->tag = EXPORTS_CARILLON_POLICY_RETRY_DECISION_GIVE_UP;
        say(&decision->val.give_up, "All attempts that `max_attempts` allows have been made.");
        return true;
    }
    uint64_t own = backoff_ms(&with, attempt->number), asked = asked_ms(attempt);
    int64_t now = (int64_t)attempt->now_ms;
    decision->tag = EXPORTS_CARILLON_POLICY_RETRY_DECISION_AFTER_MS;
    decision->val.after_ms = (uint64_t)(opening(&with, now + (int64_t)(own > asked ? own : asked)) - now);
    return true;
}

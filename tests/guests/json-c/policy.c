// A judge for Carillon's tests: says what the reader of JSON makes of the body. A body that is no JSON is retryable. The reason has the
// member `s` in hexadecimal digits, if it is a string, and the member `n`, if it is a whole number.

#include <json.h>
#include <string.h>
#include <text.h>

#include "policy.h"

void exports_carillon_policy_meta_describe(exports_carillon_policy_meta_description_t *it) {
    policy_string_dup(&it->name, "json-c");
    policy_string_dup(&it->version, "0.1.0");
    policy_string_dup(&it->summary, "Says what the reader of JSON makes of the body.");
    policy_string_dup(&it->config_schema, "{}");
}

bool exports_carillon_policy_meta_check(policy_string_t *config, policy_string_t *error) {
    return true;
}

bool exports_carillon_policy_judge_judge(exports_carillon_policy_judge_attempt_t *attempt, policy_string_t *config,
                                         exports_carillon_policy_judge_exchange_t *exchange,
                                         exports_carillon_policy_judge_verdict_t *verdict,
                                         exports_carillon_policy_judge_failure_t *failure) {
    policy_list_u8_t *body = &exchange->val.response.body;
    json_value json = json_read(body->ptr, body->len);
    char words[64];
    int64_t number;
    text reason = {0};
    text_add(&reason, "s=");
    if (json_text(json_member(json, "s"), words, sizeof words)) {
        text_add_hex(&reason, words, strlen(words));
    }
    text_add(&reason, " n=");
    if (json_integer(json_member(json, "n"), &number)) {
        text_add(&reason, number < 0 ? "-" : "");
        text_add_number(&reason, number < 0 ? -(uint64_t)number : (uint64_t)number);
    }
    verdict->outcome = json_exists(json) ? EXPORTS_CARILLON_POLICY_JUDGE_OUTCOME_SUCCESS
                                         : EXPORTS_CARILLON_POLICY_JUDGE_OUTCOME_RETRYABLE;
    verdict->reason = (policy_string_t){reason.bytes, reason.length};
    return true;
}

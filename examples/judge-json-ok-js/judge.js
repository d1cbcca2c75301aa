// A judge for receivers that answer 200 to everything: the body `{"ok": false}` is a failure.

export const meta = {
  describe() {
    return {
      name: 'judge-json-ok-js',
      version: '0.1.0',
      summary: 'An answer that says it failed has failed, even with status 200.',
      configSchema: '{"type": "object", "additionalProperties": false}',
    };
  },

  // There are no settings, and the schema says so.
  check(_config) {},
};

export const judge = {
  judge(_attempt, _config, exchange) {
    if (exchange.tag === 'transport-error') {
      return { outcome: 'retryable', reason: exchange.val.message };
    }
    const { status, body } = exchange.val;
    if (status < 200 || status > 299) {
      return { outcome: 'retryable', reason: `The status is ${status}.` };
    }
    if (parsed(body)?.ok === false) {
      return { outcome: 'retryable', reason: 'The body says that it failed.' };
    }
    return { outcome: 'success', reason: `The status is ${status}.` };
  },
};

// What the bytes say in JSON, if they do.
function parsed(bytes) {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch (error) {
    // Goes to the log of the attempt.
    console.log(`The body is not JSON: ${error.message}`);
    return undefined;
  }
}

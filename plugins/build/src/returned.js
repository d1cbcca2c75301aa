
// What a call may return, by its name: checked here, because the runtime traps on anything else and does not say why.

function isText(value) {
  return typeof value === 'string';
}

function isBytes(value) {
  return Array.isArray(value) || ArrayBuffer.isView(value) || value instanceof ArrayBuffer;
}

function described(value) {
  if (value === null || value === undefined) {
    return String(value);
  }
  return isText(value) ? JSON.stringify(value.slice(0, 40)) : `a value of the type ${value?.constructor?.name ?? typeof value}`;
}

function expect(holds, place, expected, value) {
  if (!holds) {
    throw new WrongType(`${place} must be ${expected}, not ${described(value)}`);
  }
}

class WrongType extends Error {}

function expectObject(value, name, members) {
  expect(typeof value === 'object' && value !== null, `the result of \`${name}\``, `an object with ${members}`, value);
}

function expectText(value, place) {
  expect(isText(value), place, 'a string', value);
}

function expectHeaders(headers, of) {
  expect(Array.isArray(headers), `\`headers\` of the ${of}`, 'an array of {name, value}', headers);
  for (const [index, header] of headers.entries()) {
    const place = (member) => `\`headers[${index}]${member}\` of the ${of}`;
    expect(typeof header === 'object' && header !== null, place(''), 'an object with `name` and `value`', header);
    expectText(header.name, place('.name'));
    expect(isBytes(header.value), place('.value'), 'a Uint8Array', header.value);
  }
}

const OUTCOMES = ['success', 'retryable', 'permanent'];

const RETURNED = {
  describe(result) {
    expectObject(result, 'describe', '`name`, `version`, `summary` and `configSchema`');
    for (const member of ['name', 'version', 'summary', 'configSchema']) {
      expectText(result[member], `\`${member}\` of the description`);
    }
  },
  encode(result) {
    expectObject(result, 'encode', '`method`, `url`, `headers` and `body`');
    expectText(result.method, '`method` of the request');
    expectText(result.url, '`url` of the request');
    expectHeaders(result.headers, 'request');
    expect(isBytes(result.body), '`body` of the request', 'a Uint8Array', result.body);
  },
  sign(result) {
    expectObject(result, 'sign', '`headers` and `body`');
    expectHeaders(result.headers, 'signature');
    const isLeftOut = result.body === undefined || result.body === null;
    expect(isLeftOut || isBytes(result.body), '`body` of the signature', 'a Uint8Array or undefined', result.body);
  },
  judge(result) {
    expectObject(result, 'judge', '`outcome` and `reason`');
    expect(OUTCOMES.includes(result.outcome), '`outcome` of the verdict', "'success', 'retryable' or 'permanent'", result.outcome);
    expectText(result.reason, '`reason` of the verdict');
  },
  next(result) {
    expectObject(result, 'next', '`tag` and `val`');
    expect(['after-ms', 'give-up'].includes(result.tag), '`tag` of the decision', "'after-ms' or 'give-up'", result.tag);
    if (result.tag === 'after-ms') {
      expect(typeof result.val === 'bigint' && result.val >= 0n, '`val` of `after-ms`', 'a BigInt of at least 0, such as 1000n', result.val);
    } else {
      expectText(result.val, '`val` of `give-up`');
    }
  },
};

// The module that becomes the component: the policy, with what it throws made visible.
//
// An exception becomes log lines that say where it was thrown, and a failure with its message. So does a result of the wrong type.

import * as policy from './POLICY';

const FUNCTIONS = {
  meta: ['describe', 'check'],
  encode: ['encode'],
  sign: ['sign'],
  judge: ['judge'],
  retry: ['next'],
  observe: ['observe'],
};
const BLAMES = ['job', 'config', 'policy'];

// Whether the policy means it: a failure as the interface has it, and for `check` a sentence.
function isMeant(name, thrown) {
  if (name === 'check') {
    return typeof thrown === 'string';
  }
  return BLAMES.includes(thrown?.blame) && typeof thrown.code === 'string' && typeof thrown.message === 'string';
}

function messageOf(thrown) {
  if (thrown instanceof Error) {
    return `${thrown.name}: ${thrown.message}`;
  }
  return typeof thrown === 'string' ? thrown : `${JSON.stringify(thrown)} was thrown`;
}

// Returns what the call returned, if the interface takes it.
function checked(name, result) {
  RETURNED[name]?.(result);
  return result;
}

function failed(name, thrown) {
  if (isMeant(name, thrown)) {
    throw thrown;
  }
  if (thrown instanceof WrongType) {
    console.error(thrown.message);
    if (name === 'describe') {
      // It has no failure to return.
      throw thrown;
    }
    throw { blame: 'policy', code: 'wrong-type', message: `${name}: ${thrown.message}` };
  }
  const message = messageOf(thrown);
  console.error(message);
  for (const line of String(thrown?.stack ?? '').split('\n').filter(Boolean).slice(0, 5)) {
    console.error(`at ${line}`);
  }
  switch (name) {
    case 'check':
      throw message;
    case 'observe':
      return undefined;
    case 'describe':
      throw thrown;
    default:
      throw { blame: 'policy', code: 'exception', message };
  }
}

function guarded(name, call) {
  return function (...given) {
    try {
      const result = call.apply(this, given);
      if (typeof result?.then === 'function') {
        return result.then((value) => checked(name, value)).catch((thrown) => failed(name, thrown));
      }
      return checked(name, result);
    } catch (thrown) {
      return failed(name, thrown);
    }
  };
}

function role(name) {
  const played = policy[name];
  if (played === undefined) {
    throw new Error(`the policy exports no \`${name}\`, which its world has`);
  }
  const calls = FUNCTIONS[name].map((call) => [call, guarded(call, played[call])]);
  return { ...played, ...Object.fromEntries(calls) };
}


// The module that becomes the component: the policy, with what it throws made visible.
//
// An exception becomes log lines that say where it was thrown, and a failure with its message.

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

function guarded(name, call) {
  return function (...given) {
    try {
      return call.apply(this, given);
    } catch (thrown) {
      if (isMeant(name, thrown)) {
        throw thrown;
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
          // It has no failure to return.
          throw thrown;
        default:
          throw { blame: 'policy', code: 'exception', message };
      }
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


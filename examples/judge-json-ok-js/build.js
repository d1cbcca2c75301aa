// Makes a component of judge.js: `node build.js [FILE]`.

import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { componentize } from '@bytecodealliance/componentize-js';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

// Console, clock and randomness exist for a policy, and follow from its arguments. The network does not.
const { component } = await componentize(await readFile(here('judge.js'), 'utf8'), {
  witPath: here('../../wit'),
  worldName: 'judge-policy',
  disableFeatures: ['http', 'fetch-event'],
});
await writeFile(process.argv[2] ?? here('judge-json-ok-js.wasm'), component);

// Makes a component of a JavaScript file. Arguments: the file, the directory of its world, the world's name, where to write.

import { writeFile } from 'node:fs/promises';
import { componentize } from '@bytecodealliance/componentize-js';

const [sourcePath, witPath, worldName, output] = process.argv.slice(1);

// Console, clock and randomness exist for a policy, and follow from its arguments. The network does not.
const { component } = await componentize({ sourcePath, witPath, worldName, disableFeatures: ['http', 'fetch-event'] });
await writeFile(output, component);

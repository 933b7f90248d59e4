import { existsSync } from 'node:fs';
import type { KnipConfig } from 'knip';

// As long as there is no command line, nothing is reachable from it, and what looks dead is only not yet used.
const whenProductStands = existsSync('agent/cli.ts') ? 'error' : 'off';

const config: KnipConfig = {
  entry: ['agent/{main,cli}.ts!', 'agent/config/write-schema.ts', 'demo/run-demo.ts', 'test/peers/**/*.ts'],
  project: ['**/*.{ts,mjs}'],
  // A type that a signature in the same file mentions is part of that signature.
  ignoreExportsUsedInFile: { interface: true, type: true },
  rules: {
    files: whenProductStands,
    dependencies: whenProductStands,
    exports: whenProductStands,
    types: whenProductStands,
    duplicates: 'error',
    unlisted: 'error',
    unresolved: 'error',
    binaries: 'error',
  },
};

export default config;

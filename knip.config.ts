import type { KnipConfig } from 'knip';

const config: KnipConfig = {
  entry: [
    'agent/{main,cli}.ts!',
    // Started by path: worker threads, and what a test loads into a process of its own.
    '{agent/protect/pipeline,restore/restore}-worker.ts!',
    'test/end-to-end/clock-off.ts',
    'test/peers/**/*.ts',
  ],
  project: ['**/*.{ts,mjs}'],
  // A type that a signature in the same file mentions is part of that signature, and so is an error that it throws.
  ignoreExportsUsedInFile: { class: true, interface: true, type: true },
};

export default config;

import type { KnipConfig } from 'knip';

const config: KnipConfig = {
  entry: [
    'agent/{main,cli}.ts!',
    // Started by path: worker threads, the guard, and what a test loads into a process of its own.
    '{agent/protect/pipeline,restore/restore}-worker.ts!',
    'test/hypervisors/kvm/killed-agent.ts',
    'test/hypervisors/hyperv/model-worker.ts',
    'test/hypervisors/vsphere/start-without-descriptors.ts',
    'test/end-to-end/clock-off.ts',
    'test/rig/fragmented/sync-process.ts',
    'test/faults/{inject,patch-sources}.ts',
    'test/peers/**/*.ts',
    'test/storage-targets/wire/paced-traffic.ts',
    // An administrator runs it.
    'docs/operations/vsphere-acceptance.mjs',
  ],
  // Of the system: a test that needs one and does not find it is skipped, and says so.
  ignoreBinaries: ['strace', 'mount', 'umount', 'qemu-nbd', 'cmp', 'unshare', 'script', 'setpriv'],
  project: ['**/*.{ts,mjs}'],
  // A type that a signature in the same file mentions is part of that signature, and so is an error that it throws.
  ignoreExportsUsedInFile: { class: true, interface: true, type: true },
};

export default config;

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { defineConfig, type Plugin } from 'rolldown';

/** The package that a module belongs to: its folder and its name. */
const packageOf = /^(.*\/node_modules\/((?:@[^/]+\/)?[^/]+))\//;
const licenceFile = /^(licen[cs]e|notice|copying)/i;

/** Bundled packages are given on, so their licences have to be, too. */
const licences: Plugin = {
  name: 'licences',
  generateBundle(_options, bundle) {
    const modules = Object.values(bundle).flatMap((chunk) => (chunk.type === 'chunk' ? chunk.moduleIds : []));
    const packages = new Map<string, string>();
    for (const id of modules) {
      const [, folder, name] = packageOf.exec(id) ?? [];
      if (folder !== undefined && name !== undefined) packages.set(name, folder);
    }
    const texts = [...packages].sort().map(([name, folder]) => `# ${name}\n\n${licencesIn(folder)}`);
    this.emitFile({ type: 'asset', fileName: 'third-party-licences.txt', source: texts.join('\n\n') });
  },
};

function licencesIn(folder: string): string {
  const { license, version } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  const files = readdirSync(folder).filter((name) => licenceFile.test(name) && existsSync(join(folder, name)));
  return [`version ${version}, ${license}`, ...files.map((name) => readFileSync(join(folder, name), 'utf8'))].join(
    '\n\n',
  );
}

/** What a PowerShell on a Hyper-V host is given to run. */
const hypervWorker: Plugin = {
  name: 'hyperv-worker',
  generateBundle() {
    const source = readFileSync('hypervisors/hyperv/hyperv-worker.ps1');
    this.emitFile({ type: 'asset', fileName: 'hyperv-worker.ps1', source });
  },
};

/** Few large files instead of 600 small ones: an agent that is started from them is ready in a quarter of the time. */
export default defineConfig({
  platform: 'node',
  input: {
    main: 'agent/main.ts',
    // Threads, and the guard of a frozen guest, are started by the path of their file.
    'guard-process': 'hypervisors/kvm/guard-process.ts',
    'pipeline-worker': 'agent/protect/pipeline-worker.ts',
    'restore-worker': 'restore/restore-worker.ts',
  },
  // Starts threads with a file of its own; has parts that were compiled for this host.
  external: ['piscina', 'ssh2'],
  plugins: [licences, hypervWorker],
  output: {
    dir: 'dist/agent',
    format: 'esm',
    entryFileNames: '[name].js',
    chunkFileNames: '[name]-[hash].js',
    cleanDir: true,
    sourcemap: true,
  },
});

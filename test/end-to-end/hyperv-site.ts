/** A model of a Hyper-V host, and an agent that protects its machine through the model's worker: nothing here is Windows. */
import { randomBytes } from 'node:crypto';
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { modelVm } from '../hypervisors/hyperv/model-host.ts';
import { loadModel, type StoredModel, saveModel } from '../hypervisors/hyperv/model-storage.ts';
import { type FailkitProcess, type Outcome, runFailkit, startFailkit } from './failkit-process.ts';

const mebibyte = 2 ** 20;
const worker = join(import.meta.dirname, '../hypervisors/hyperv/model-worker.ts');

export interface HypervSite extends AsyncDisposable {
  readonly folder: string;
  /** Looks at the model, or changes it; only while no agent runs. */
  model<Result>(look: (model: StoredModel) => Result): Result;
  /** As the guest would, somewhere on each disk. */
  write(): void;
  configure(settings?: { readonly source?: object; readonly host?: object; readonly machine?: object }): Promise<void>;
  failkit(...args: readonly string[]): Promise<Outcome>;
  start(...args: readonly string[]): FailkitProcess;
  /** Labels of disks whose bytes are not those of the model now. */
  differing(point: string): Promise<readonly string[]>;
}

export async function openHypervSite(): Promise<HypervSite> {
  const folder = await mkdtemp(join(tmpdir(), 'failkit-hyperv-'));
  const host = join(folder, 'host');
  const powershell = join(folder, 'powershell');
  await writeFile(
    powershell,
    `#!/bin/sh\nprintf . >>'${folder}/starts'\nexec '${process.execPath}' --disable-warning=ExperimentalWarning '${worker}' '${host}'\n`,
  );
  await chmod(powershell, 0o755);
  const model: HypervSite['model'] = (look) => {
    const stored = loadModel(host);
    const result = look(stored);
    saveModel(stored);
    return result;
  };
  model((stored) => {
    stored.host.manners.jobStates = [];
    stored.host.addDisk('scsi0:0', Buffer.concat([randomBytes(mebibyte), Buffer.alloc(2 * mebibyte + 1024)]));
    stored.host.addDisk('scsi0:1', Buffer.alloc(mebibyte));
  });
  const configure: HypervSite['configure'] = ({ source = {}, host: changed = {}, machine = {} } = {}) =>
    writeFile(
      join(folder, 'failkit.yaml'),
      stringify({
        repository: { target: 'filesystem', directory: 'bucket' },
        ...{ keys: { provider: 'local-key', file: 'local.key' }, state: 'state' },
        sources: [{ name: 'hv', type: 'hyperv', powershell, ...changed }],
        machines: [{ name: 'web', source: { type: 'hyperv', from: 'hv', vm: modelVm, ...source }, ...machine }],
      }),
    );
  await configure();
  const withConfig = (args: readonly string[]) => ['--config', join(folder, 'failkit.yaml'), ...args];
  const failkit = (...args: readonly string[]) => runFailkit(withConfig(args), { folder });
  return {
    ...{ folder, model, configure, failkit },
    write: () =>
      model(({ host: windows }) => {
        for (const { label } of windows.disks)
          windows.write(label, 512 * Math.floor(Math.random() * 1000), randomBytes(3 * 512));
      }),
    start: (...args) => startFailkit(withConfig(args), { folder }),
    async differing(point) {
      const to = join(folder, `restored-${point}`);
      const { exitCode, stderr } = await failkit('restore', 'web', '--to', to, '--point', point);
      if (exitCode !== 0) throw new Error(stderr);
      const contents = model((stored) => stored.host.disks.map(({ label, content }) => ({ label, content })));
      const found: string[] = [];
      for (const { label, content } of contents)
        if (!content.equals(await readFile(join(to, `${label.replace(':', '_')}.raw`)))) found.push(label);
      await rm(to, { recursive: true });
      return found;
    },
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  };
}

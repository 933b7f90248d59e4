import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { recordOutput } from '../canary.ts';
import { azuriteNeeds, sasFor, startAzurite } from '../peers/azure.ts';
import { fakeGcsNeeds, startFakeGcs } from '../peers/gcs.ts';
import { codeBlocks, root, textOf } from './documents.ts';

/** The `sh` blocks of the quick starts for Azure and Google Cloud, executed in a folder that stands for the host. */

interface Stand extends AsyncDisposable {
  /** Added to the page's configuration. */
  readonly reach: Readonly<Record<string, string>>;
  readonly variables: Readonly<Record<string, string>>;
  /** What a step that needs the cloud itself leaves in /etc/failkit. */
  readonly secretFile: { readonly name: string; readonly content: string };
}

async function azureStand(): Promise<Stand> {
  const peer = await startAzurite();
  const container = await peer.createContainer();
  const sas = sasFor(peer, container, 'rlc', Date.now() + 3_600_000).reveal();
  return {
    reach: { endpoint: peer.endpoint, caFile: peer.caFile ?? '' },
    variables: { ACCOUNT: peer.account, CONTAINER: container },
    secretFile: { name: 'azure-sas', content: sas },
    [Symbol.asyncDispose]: () => peer.stop(),
  };
}

async function gcsStand(): Promise<Stand> {
  const peer = await startFakeGcs();
  return {
    reach: { endpoint: peer.endpoint, caFile: peer.caFile ?? '' },
    variables: { BUCKET: await peer.createBucket() },
    secretFile: { name: 'gcs-key', content: peer.serviceAccountKey.reveal() },
    [Symbol.asyncDispose]: () => peer.stop(),
  };
}

const pages = [
  { page: 'docs/operations/quick-start-azure.md', needs: await azuriteNeeds(), start: azureStand },
  { page: 'docs/operations/quick-start-gcp.md', needs: await fakeGcsNeeds(), start: gcsStand },
];

describe.each(pages)('$page', ({ page, needs, start }) => {
  it.skipIf(needs !== null)(needs ?? 'leads from a container to a restore that was checked', async () => {
    await using stand = await start();
    const folder = await mkdtemp(join(tmpdir(), 'failkit-quick-start-'));
    for (const place of ['etc/failkit', 'var/lib/vm']) await mkdir(join(folder, place), { recursive: true });
    const { name, content } = stand.secretFile;
    await writeFile(join(folder, 'etc/failkit', name), content, { mode: 0o600 });
    const disk = join(folder, 'var/lib/vm/web-1.raw');
    await writeFile(disk, Buffer.concat([randomBytes(3_000_000), new Uint8Array(2_000_000)]));
    const longAgo = new Date(Date.now() - 3_600_000);
    await utimes(disk, longAgo, longAgo);
    const script = codeBlocks(await textOf(page), 'sh').join('\n');
    const reach = Object.entries(stand.reach).map(([key, value]) => `  ${key}: ${value}\n`);
    const here = script
      .replaceAll(/\/(etc|var\/lib)\/(failkit|vm)/g, `${folder}/$1/$2`)
      .replace('repository:\n', `repository:\n${reach.join('')}`);
    const printed = await shell(here, folder, stand.variables);
    expect(printed).toMatch(/^ok +store .*answers in/m);
    expect(printed).not.toMatch(/^(failed|warning) /m);
    expect(printed).toMatch(/^ok web-1 {2}level full/m);
    expect(await readFile(join(folder, 'restored/system.raw'))).toEqual(await readFile(disk));
    await rm(folder, { recursive: true });
  });
});

async function shell(script: string, folder: string, variables: Readonly<Record<string, string>>): Promise<string> {
  const env = { PATH: [join(root, 'bin'), process.env.PATH].join(delimiter), HOME: folder, ...variables };
  const withConfig = `failkit() { env failkit --config ${folder}/etc/failkit/failkit.yaml "$@"; }\n`;
  const { stdout, stderr } = await promisify(execFile)('sh', ['-euc', withConfig + script], { cwd: folder, env });
  recordOutput(stdout + stderr);
  return stdout;
}

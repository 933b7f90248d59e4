import { existsSync, mkdirSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { stringify } from 'yaml';
import { createKeyFile } from '../crypto/key-file.ts';
import type { RecoveryKeyPair } from '../crypto/recovery-key.ts';
import { rootFingerprint } from '../crypto/root-fingerprint.ts';
import type { SigningKey } from '../crypto/signing.ts';
import type { Config } from './config/config-schema.ts';
import { findableSettings, placeOf } from './repository-place.ts';

/** The recovery kit: given to the operator once, by `init` or by `root replace`, and kept nowhere else. */

/** The folder of a kit must not be there yet. */
export class KitExists extends Error {
  readonly code = 'KIT_EXISTS';
  override readonly name = 'KitExists';
}

export interface KitContent {
  readonly root: SigningKey;
  /** Null when only the root key was replaced. */
  readonly recovery: RecoveryKeyPair | null;
}

export const kitFiles = {
  text: 'RECOVERY-KIT.txt',
  rootKey: 'root.key',
  recoveryKey: 'recovery.key',
  config: 'restore.yaml',
} as const;

/** For those who want to know before they begin. Throws KitExists. */
export function requireNewFolder(folder: string): void {
  const path = resolve(folder);
  if (existsSync(path)) throw new KitExists(`${path} exists: a kit never replaces anything; name a new folder`);
}

/** Writes a new folder, mode 0700, durable when it resolves. Throws KitExists. */
export async function writeRecoveryKit(folder: string, content: KitContent, config: Config): Promise<void> {
  requireNewFolder(folder);
  const path = resolve(folder);
  mkdirSync(path, { recursive: true, mode: 0o700 });
  const rootPem = content.root.exportPem();
  await createKeyFile(join(path, kitFiles.rootKey), rootPem);
  rootPem.fill(0);
  if (content.recovery !== null) await createKeyFile(join(path, kitFiles.recoveryKey), content.recovery.privatePem);
  await createKeyFile(join(path, kitFiles.config), Buffer.from(restoreConfig(content, config)));
  await createKeyFile(join(path, kitFiles.text), Buffer.from(kitText(content, config)));
  await syncFolder(dirname(path));
}

/** With this file, the bucket and the recovery key another host lists and restores everything. */
function restoreConfig({ root }: KitContent, { repository }: Config): string {
  const settings = {
    repository: findableSettings(repository),
    rootFingerprint: rootFingerprint(root.publicKey),
    keys: { provider: 'recovery-key', file: kitFiles.recoveryKey },
    state: 'state',
  };
  return `# For recovery with this kit alone:  failkit --config ${kitFiles.config} points\n${stringify(settings)}`;
}

function kitText({ root, recovery }: KitContent, { repository }: Config): string {
  const region = repository.target === 's3' ? ` (${repository.region})` : '';
  return `FAILKIT RECOVERY KIT
Made ${new Date().toISOString()}. Nobody else has it, and nobody can make it again.

Repository        ${placeOf(repository)}${region}
Root fingerprint  ${rootFingerprint(root.publicKey)}

${kitFiles.rootKey}      certifies, revokes and replaces agents' keys (failkit root …). Keep it offline,
              apart from the bucket's credentials. Whoever has it can forge recovery points.
${
  recovery === null
    ? '              The recovery key of the former kit stays valid: keep that kit, too.'
    : `${kitFiles.recoveryKey}  opens every replica when the KMS is gone. Whoever has it and the bucket can read
              all of them. Keep it offline, at another place than the bucket.`
}
${kitFiles.config}  the configuration for recovery on any other machine.

TO RECOVER  Install failkit on any machine that reaches the bucket, give it the bucket's
credentials, take this folder there, and run in it:

    failkit --config ${kitFiles.config} points
    failkit --config ${kitFiles.config} restore MACHINE --to FOLDER

Try this today, and once a year. Print the fingerprint, and this page.
`;
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

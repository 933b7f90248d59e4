/** OpenSSH's own server on loopback, for one account and one key. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { freePort, peerFolder, peerNeeds } from './server-process.ts';

export interface SshServer extends AsyncDisposable {
  readonly port: number;
  readonly user: string;
  /** Of the client. */
  readonly keyFile: string;
  /** `SHA256:…` of the server's key. */
  readonly hostKey: string;
}

/** What is missing, or null. */
export async function sshdNeeds(): Promise<string | null> {
  if (process.getuid?.() !== 0) return 'needs root';
  return await peerNeeds('sshd');
}

/** `home`: where SFTP and commands begin, and where programs are looked for first. */
export async function startSshd(home: string): Promise<SshServer> {
  const folder = await mkdtemp(join(tmpdir(), 'failkit-sshd-'));
  const at = (name: string): string => join(folder, name);
  const run = promisify(execFile);
  for (const key of ['host-key', 'user-key']) await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', at(key)]);
  const port = await freePort();
  const settings = [
    ...[`Port ${port}`, 'ListenAddress 127.0.0.1', `HostKey ${at('host-key')}`, 'PidFile none', 'UsePAM no'],
    ...[`AuthorizedKeysFile ${at('user-key.pub')}`, 'StrictModes no', 'PermitRootLogin prohibit-password'],
    ...[`Subsystem sftp internal-sftp -d ${home}`, `SetEnv PATH=${home}:/usr/local/bin:/usr/bin:/bin`],
  ];
  await writeFile(at('sshd_config'), `${settings.join('\n')}\n`);
  const alone = ['--mount', '--pid', '--fork', '--kill-child', '--mount-proc'];
  const starter = join(import.meta.dirname, 'recipes/sshd/start.sh');
  const sshd = join(peerFolder('sshd'), 'root');
  // It dies with the test process, even when that is killed: the kernel sees to it.
  const server = spawn('setpriv', ['--pdeathsig', 'KILL', 'unshare', ...alone, starter, folder, sshd], {
    stdio: 'ignore',
  });
  const stop = async () => {
    if (server.exitCode === null && server.signalCode === null) {
      server.kill('SIGKILL');
      await once(server, 'exit');
    }
    await rm(folder, { recursive: true, force: true, maxRetries: 5 });
  };
  try {
    await answering(port, at('sshd.log'));
  } catch (error) {
    await stop();
    throw error;
  }
  const { stdout } = await run('ssh-keygen', ['-l', '-f', at('host-key.pub')]);
  const [, hostKey = ''] = stdout.split(' ');
  return { port, user: 'root', keyFile: at('user-key'), hostKey, [Symbol.asyncDispose]: stop };
}

async function answering(port: number, log: string): Promise<void> {
  for (let attempt = 0; attempt < 300; attempt++) {
    const socket = connect(port, '127.0.0.1');
    const answered = await Promise.race([once(socket, 'data'), once(socket, 'error')]).catch(() => null);
    socket.destroy();
    if (answered !== null && Buffer.isBuffer(answered[0])) return;
    await sleep(100);
  }
  throw new Error(`sshd does not answer: ${await readFile(log, 'utf8').catch(() => 'no log')}`);
}

/** A stand-in for virsh says what the real one would, or fails as it could. The real one is in the tests of whole runs. */
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { VirshShell } from '../../../../hypervisors/kvm/libvirt/virsh-shell.ts';

const never = new AbortController().signal;
const late = () => new Error('late');

/** Reads a line, repeats it as readline does, and answers by the question in it. */
const standIn = `#!/bin/sh
printf 'virsh # '
while IFS= read -r line; do
  printf '%s\\n' "$line"
  plain=$(printf '%s' "$line" | sed 's/"//g')
  begin=$(printf '%s' "$plain" | sed 's/^echo \\([^;]*\\);.*/\\1/')
  end=\${plain##* }
  case "$line" in
    *nonsense*) printf "error: unknown command: 'nonsense'\\n" >&2; continue ;;
    'echo --err'*) printf 'error: %s\\n' "$end" >&2; continue ;;
  esac
  printf '%s' "$begin"
  case "$line" in
    *backup-dumpxml*) yes | head -c 3000 ;;
    *dumpxml*) printf '<domain/>\\n' ;;
    *domstats*) printf 'half of'; printf 'error: gone\\n' >&2 ;;
    *domuuid*) printf 'error: no such domain\\n' >&2 ;;
    *checkpoint-list*) : ;;
    *domjobinfo*) exit 1 ;;
    *domblkinfo*) exec sleep 300 ;;
    *hostname*) printf '%s %s %s\\n' "$$" "$XDG_CACHE_HOME" "$LC_ALL" ;;
    *version*) printf "error: command 'echo' doesn't support option --err\\n" >&2; printf '%s' "$end"; continue ;;
  esac
  printf '%svirsh # ' "$end"
  printf 'error: %s\\n' "$end" >&2
done
`;

describe('a virsh that stays', () => {
  const path = process.env.PATH;
  let bin: string;
  beforeAll(async () => {
    bin = await mkdtemp(join(tmpdir(), 'failkit-shell-'));
    await writeFile(join(bin, 'virsh'), standIn);
    await chmod(join(bin, 'virsh'), 0o755);
    process.env.PATH = `${bin}${delimiter}${path}`;
  });
  afterAll(async () => {
    process.env.PATH = path;
    await rm(bin, { recursive: true });
  });

  const open = (timeoutMs = 10_000) => new VirshShell('test:///default', { timeoutMs, charsMax: 2_000 });

  it('answers one question after the other, whoever asks at the same time', async () => {
    using shell = open();
    const answers = Array.from({ length: 5 }, () => shell.ask(['dumpxml', '--domain', 'a "b" \\ ; c'], never, late));
    expect(await Promise.all(answers)).toEqual(new Array(5).fill('<domain/>\n'));
  });

  it.each([['domstats'], ['domuuid'], ['checkpoint-list'], ['nonsense']])(
    'is not believed where it complains, says nothing or understands nothing (%s), and goes on',
    async (question) => {
      using shell = open();
      expect(await shell.ask([question], never, late)).toBeNull();
      expect(await shell.ask(['dumpxml'], never, late)).toBe('<domain/>\n');
    },
  );

  it.each([
    ['it ends', 'domjobinfo'],
    ['it is too old', 'version'],
    ['it says too much', 'backup-dumpxml'],
  ])('knows nothing any more once %s', async (_, question) => {
    using shell = open();
    expect(await shell.ask([question], never, late)).toBeNull();
    expect(await shell.ask(['dumpxml'], never, late)).toBeNull();
  });

  it('is given up when it takes too long, or the run ends', async () => {
    using slow = open(200);
    await expect(slow.ask(['domblkinfo'], never, late)).rejects.toThrow('late');
    expect(await slow.ask(['dumpxml'], never, late)).toBeNull();
    using stopped = open();
    await expect(stopped.ask(['domblkinfo'], AbortSignal.timeout(200), late)).rejects.toThrow(/timeout/);
  });

  it('is not asked what it would read otherwise than it is written', async () => {
    using shell = open();
    for (const name of ['wéb', 'tab\there', 'line\nbreak'])
      expect(await shell.ask(['dumpxml', name], never, late)).toBeNull();
    expect(await shell.ask(['dumpxml'], never, late)).toBe('<domain/>\n');
  });

  it('ends with its owner, whatever it is at, and keeps nothing of what it was asked', async () => {
    const shell = open();
    const [pid, cache, locale] = (await shell.ask(['hostname'], never, late))?.trim().split(' ') ?? [];
    expect([cache, locale]).toEqual(['/dev/null', 'C']);
    const stuck = shell.ask(['domblkinfo'], never, late);
    await expect.poll(() => readFile(`/proc/${pid}/comm`, 'utf8')).toBe('sleep\n');
    shell[Symbol.dispose]();
    expect(await stuck).toBeNull();
    await expect.poll(() => readFile(`/proc/${pid}/comm`, 'utf8').catch(() => 'gone')).toBe('gone');
  });

  it('is none where there is no virsh', async () => {
    const own = process.env.PATH;
    process.env.PATH = '/nowhere';
    using shell = open();
    process.env.PATH = own;
    expect(await shell.ask(['dumpxml'], never, late)).toBeNull();
  });
});

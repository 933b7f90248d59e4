import { execFile } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

/** A copy of the sources that lacks one check, and the sweep run against it. */

const root = join(import.meta.dirname, '../..');
const program = fileURLToPath(new URL('./print-complaints.ts', import.meta.url));
const sources = ['agent', 'crypto', 'hypervisors', 'replica', 'restore', 'storage-targets', 'test', 'package.json'];
const outputBytesMax = 64 * 2 ** 20;

export interface Weakening {
  readonly without: string;
  readonly file: string;
  /** Found exactly once in the file. */
  readonly check: string;
  readonly instead: string;
}

export const weakenings: readonly Weakening[] = [
  {
    without: 'the tag check of records',
    file: 'crypto/suite.ts',
    check: '    decrypt.final();\n  } catch (cause) {\n    body.fill(0);',
    instead: '    decrypt.getAuthTag;\n  } catch (cause) {\n    body.fill(0);',
  },
  {
    without: 'the commitment check',
    file: 'crypto/suite.ts',
    check: '!timingSafeEqual(keys.commitment, found)',
    instead: 'found === keys.commitment',
  },
  {
    without: 'the signature check',
    file: 'crypto/signing.ts',
    check: '  if (!good)\n',
    instead: '  if (!good && good)\n',
  },
  {
    without: 'the digest check of pages',
    file: 'replica/segment-reader.ts',
    check: 'if (!sameBytes(pageDigest(sealed), ref.digest)) {',
    instead: 'if (sealed.length === 0) {',
  },
  {
    without: 'the digest check of blocks',
    file: 'restore/open-range.ts',
    check: 'if (Buffer.compare(digest, expected) !== 0) {',
    instead: 'if (digest.length !== expected.length) {',
  },
  {
    without: 'the digest check of key records',
    file: 'replica/read-key-records.ts',
    check: 'if (digest !== null && sameBytes(sha256(first.bytes), digest)) return;',
    instead: 'if (digest !== null) return;',
  },
  {
    without: 'the check that an entry follows the one before',
    file: 'replica/chain.ts',
    check: 'if (sameBytes(before.digest, entry.previous)) return;',
    instead: 'if (before.seq + 1 === entry.seq) return;',
  },
  {
    without: 'the check that a segment is in its place',
    file: 'replica/segment.ts',
    check: 'if (found.tenure !== expected.tenure || found.number !== expected.number) {',
    instead: 'if (found.tenure < 0) {',
  },
];

/** What the sweep complains about there. */
export async function complaintsWithout({ file, check, instead }: Weakening): Promise<readonly string[]> {
  const copy = mkdtempSync(join(tmpdir(), 'failkit-weakened-'));
  try {
    for (const source of sources) cpSync(join(root, source), join(copy, source), { recursive: true });
    symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'));
    const parts = readFileSync(join(copy, file), 'utf8').split(check);
    if (parts.length !== 2) throw new Error(`${file} has the check ${parts.length - 1} times: ${check}`);
    writeFileSync(join(copy, file), parts.join(instead));
    const script = join(copy, relative(root, program));
    const { stdout } = await promisify(execFile)(process.execPath, [script], {
      maxBuffer: outputBytesMax,
    });
    return JSON.parse(stdout);
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
}

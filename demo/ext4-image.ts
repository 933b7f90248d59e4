import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { formatBytes } from '../agent/quantities.ts';
import { claim } from './claim.ts';
import {
  type Changed,
  type DiskImage,
  type Installed,
  imageBytes,
  type KnownContent,
  removeEvery,
  rewriteEvery,
} from './disk-image.ts';
import { runProgram } from './programs.ts';
import { clone, filesBelow, packages, type RealFile } from './real-files.ts';

/** An ext4 file system made by mkfs.ext4 and changed by debugfs: real inodes, bitmaps and extents, and no root. */

const smallFileBytesMax = 256 * 1024;
const sourceFolders = ['agent', 'crypto', 'docs', 'hypervisors', 'replica', 'restore', 'storage-targets'];

/** `workshop` is a folder for what debugfs reads. */
export async function makeExt4Image(
  path: string,
  workshop: string,
  known: KnownContent,
  signal: AbortSignal,
): Promise<DiskImage> {
  mkdirSync(workshop, { recursive: true });
  await runProgram('mkfs.ext4', ['-q', '-F', '-L', 'demo', '-d', packages, path, `${imageBytes / 1024}k`], {
    cwd: workshop,
    signal,
  });
  const edit = (commands: readonly string[]) => debugfs(path, workshop, commands, signal);
  writeFileSync(join(workshop, 'ledger.txt'), `${known.text}\n`.repeat(1000));
  writeFileSync(join(workshop, 'noise.bin'), known.noise);
  const sources = sourceFolders.flatMap((folder) => copySources(folder, workshop));
  await edit(['mkdir srv', 'cd /srv', 'write ledger.txt ledger.txt', 'write noise.bin noise.bin', ...sources]);
  return {
    path,
    description: await describe(path, workshop, signal),
    changeHereAndThere: () => changeHereAndThere(workshop, edit),
    installRelease: () => installRelease(edit),
    checkImage: (image) => checkFileSystem(image, workshop, signal),
  };
}

/** Commands that put the sources of one folder, without its subfolders' structure, under /srv. */
function copySources(folder: string, workshop: string): readonly string[] {
  const files = filesBelow(join(clone, folder));
  const copies = files.map(({ path }) => {
    const name = path.replaceAll('/', '_');
    writeFileSync(join(workshop, `${folder}-${name}`), readFileSync(join(clone, folder, path)));
    return `write ${folder}-${name} ${name}`;
  });
  return ['cd /srv', `mkdir ${folder}`, `cd /srv/${folder}`, ...copies];
}

async function changeHereAndThere(
  workshop: string,
  edit: (commands: readonly string[]) => Promise<void>,
): Promise<Changed> {
  const small = filesBelow(packages).filter(({ bytes }) => bytes > 0 && bytes < smallFileBytesMax);
  const chosen = small.filter((_, i) => i % rewriteEvery === 0);
  const removed = chosen.filter((_, i) => i % removeEvery === 0);
  const rewritten = chosen.filter((_, i) => i % removeEvery !== 0);
  await edit([...removed.flatMap(remove), ...rewritten.flatMap((file, i) => rewrite(file, i, workshop))]);
  return { rewritten: rewritten.length, removed: removed.length };
}

function remove({ path }: RealFile): readonly string[] {
  return [`rm /${path}`];
}

/** As an editor does: the new content goes to other blocks, and the old file is removed. */
function rewrite(file: RealFile, number: number, workshop: string): readonly string[] {
  const folder = dirname(file.path);
  const content = `edited copy ${number}`;
  const added = Buffer.from(`\n${content}\n`);
  writeFileSync(join(workshop, `rewritten-${number}`), Buffer.concat([readFileSync(join(packages, file.path)), added]));
  return [
    `cd /${folder === '.' ? '' : folder}`,
    `rm /${file.path}`,
    `write rewritten-${number} ${file.path.slice(folder === '.' ? 0 : folder.length + 1)}`,
  ];
}

/** The Node that runs this demo: a program of more than a hundred MiB that every machine has. */
async function installRelease(edit: (commands: readonly string[]) => Promise<void>): Promise<Installed> {
  await edit(['mkdir opt', 'cd /opt', `write "${process.execPath}" server`]);
  return { bytes: readFileSync(process.execPath).length };
}

/** Debugfs ends with 0 whatever happened to its commands; what failed is on its standard error, below the banner. */
async function debugfs(
  image: string,
  workshop: string,
  commands: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  writeFileSync(join(workshop, 'commands'), `${commands.join('\n')}\n`);
  const { stderr } = await runProgram('debugfs', ['-w', '-f', 'commands', image], { cwd: workshop, signal });
  const complaints = stderr.split('\n').filter((line) => line.trim() !== '' && !line.startsWith('debugfs '));
  claim(complaints.length === 0, `debugfs changed the image: ${complaints.slice(0, 3).join('; ')}`);
}

async function describe(path: string, cwd: string, signal: AbortSignal): Promise<string> {
  const { stdout } = await runProgram('debugfs', ['-R', 'show_super_stats -h', path], { cwd, signal });
  const field = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)$`, 'm').exec(stdout)?.[1] ?? Number.NaN);
  const inodes = field('Inode count') - field('Free inodes');
  const free = field('Free blocks') * field('Block size');
  claim(inodes > 1000 && free > 0, `the image holds files and free space: ${inodes} inodes, ${free} bytes free`);
  return `${formatBytes(imageBytes)} of ext4: ${inodes.toLocaleString('en')} files and folders, ${formatBytes(free)} free`;
}

async function checkFileSystem(path: string, cwd: string, signal: AbortSignal): Promise<string> {
  // -n answers "no" to every question: the image is not altered, and anything to repair is an exit code above 0.
  await runProgram('e2fsck', ['-f', '-n', path], { cwd, signal });
  return 'e2fsck: clean';
}

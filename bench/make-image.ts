import { measure } from './measure.ts';

/** An ext4 file system with everything below a folder, and a sixth of it free. */

const freeShare = 1 / 6;
const kibibyte = 1024;

export async function makeImage(path: string, source: string): Promise<void> {
  const { stdout } = await measure({ command: 'du', args: ['-sxk', source] });
  const usedKib = Number.parseInt(stdout, 10);
  const sizeKib = Math.ceil(usedKib / (1 - freeShare) / kibibyte) * kibibyte;
  await measure({ command: 'mke2fs', args: ['-q', '-F', '-t', 'ext4', '-d', source, path, `${sizeKib}k`] });
}

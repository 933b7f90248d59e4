import { dirname, join } from 'node:path';
import { formatBytes } from '../../agent/quantities.ts';
import { objectsOf } from '../bucket-folder.ts';
import { claim } from '../claim.ts';
import { searchFile } from '../search-file.ts';
import { machineName, type Site } from '../site.ts';

const noisePieces = 6;
const noisePieceBytes = 24;
/** Pieces begin inside a block of the file system, so that the image holds each of them in one piece. */
const blockBytes = 4096;

/** Looks for what stands in the image. The image itself is searched, too: a search that can't find proves nothing. */
export async function searchForPlaintext(site: Site): Promise<void> {
  const { screen, known, bucket, signal } = site;
  screen.chapter('What a thief of the bucket sees');
  const pieces = Array.from({ length: noisePieces }, (_, i) => {
    const from = i * Math.floor(known.noise.length / noisePieces / blockBytes) * blockBytes;
    return Buffer.from(known.noise.subarray(from, from + noisePieceBytes));
  });
  const onDisk = [Buffer.from(known.text), Buffer.from('"dependencies":'), ...pieces];
  const image = join(dirname(site.folder), 'lost', 'disk.img');
  const inImage = await screen.during('searching the image', searchFile(image, onDisk, signal));
  claim(inImage === onDisk.length, `the search finds what is there: ${inImage} of ${onDisk.length}`);

  const objects = objectsOf(bucket);
  const needles = [...onDisk, Buffer.from(machineName)];
  const search = async () => {
    let found = 0;
    for (const { name } of objects) {
      found += needles.filter((needle) => Buffer.from(name).includes(needle)).length;
      found += await searchFile(join(bucket, name), needles, signal);
    }
    return found;
  };
  claim(
    (await screen.during('searching the bucket', search())) === 0,
    'nothing of the machine can be read in the bucket',
  );
  const bytes = objects.reduce((sum, object) => sum + object.bytes, 0);
  screen.held(`${onDisk.length} known pieces of text and data are found in the image, as they should be`);
  screen.held(`nothing of it, nor the machine's name, in the bucket: ${objects.length} objects, ${formatBytes(bytes)}`);
}

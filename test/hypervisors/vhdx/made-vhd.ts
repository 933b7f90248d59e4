import type { Random } from '../../random.ts';
import type { MadeChain, MadeLayer } from './made-chain.ts';
import { makeVhd, vhdBlockBytes } from './vhd-maker.ts';

/**
 * A random chain of growing VHD files, with what the disk holds according to whoever made them. `leftovers`: what stands in sectors of the
 * base that its bitmaps do not name. 7-Zip wants zeros there.
 */
export function madeVhdChain(random: Random, depth: number, leftovers = 0xdd): MadeChain {
  const content = Buffer.alloc(3 * vhdBlockBytes - 512 * 2 * random.below(100));
  const layers: MadeLayer[] = [];
  const identifier = (i: number): Buffer => Buffer.alloc(16, i + 1);
  const nameOf = (i: number): string => `layer-${i}.${i === 0 ? '' : 'a'}vhd`;
  for (let i = 0; i < depth; i++) {
    const blocks = new Map<number, { readonly bytes: Buffer; readonly has: readonly boolean[] }>();
    for (let block = 0; block < 3; block++) {
      if (random.chance(0.3)) continue;
      const bytes = Buffer.alloc(vhdBlockBytes, 1 + random.below(255));
      const step = 1 + random.below(90);
      const has = Array.from({ length: vhdBlockBytes / 512 }, (_, sector) => Math.floor(sector / step) % 2 === 0);
      for (const [sector, own] of has.entries()) {
        const at = block * vhdBlockBytes + sector * 512;
        if (own && at < content.length) bytes.copy(content, at, sector * 512, sector * 512 + 512);
        // Nobody is to read what is not there.
        if (!own) bytes.fill(i === 0 ? leftovers : 0xdd, sector * 512, sector * 512 + 512);
      }
      blocks.set(block, { bytes, has });
    }
    const parent = i === 0 ? null : { identifier: identifier(i - 1), name: nameOf(i - 1) };
    const plan = { capacityBytes: content.length, identifier: identifier(i), parent, blocks };
    layers.push({ name: nameOf(i), bytes: makeVhd(plan) });
  }
  const top = layers.at(-1);
  if (top === undefined) throw new Error('a chain has a layer at least');
  return { layers, content, top };
}

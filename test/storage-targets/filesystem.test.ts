import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openFilesystemTarget } from '../../storage-targets/filesystem.ts';
import { storageTargetContract } from '../contract/storage-target.ts';

const newDirectory = () => mkdtemp(join(tmpdir(), 'failkit-target-'));

storageTargetContract({
  name: 'a directory',
  open: async () => await openFilesystemTarget({ directory: await newDirectory() }),
  lacks: { objectLock: true },
});

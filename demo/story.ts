import { damageOneBit, repair } from './chapters/damage.ts';
import { searchForPlaintext } from './chapters/plaintext.ts';
import { changeAndSync, initialise, prepareDisk, releaseAndKill, seed } from './chapters/protect.ts';
import { restoreBoth } from './chapters/restore.ts';
import { showResults } from './results.ts';
import type { Screen } from './screen.ts';

/** What happens to one machine, from its first copy to the day when its site is gone. Each chapter checks what it says. */
export async function tellStory(folder: string, screen: Screen, signal: AbortSignal): Promise<void> {
  const site = await prepareDisk(folder, screen, signal);
  await initialise(site);
  const first = await seed(site);
  const second = await changeAndSync(site);
  const third = await releaseAndKill(site, [first, second]);
  await damageOneBit(site, [first, second], third);
  const last = await repair(site, third);
  const restores = await restoreBoth(site, first, last);
  await searchForPlaintext(site);
  showResults(site, [first, second, third, last], restores);
}

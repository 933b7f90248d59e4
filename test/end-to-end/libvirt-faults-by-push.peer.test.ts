/** The same where QEMU pushes the disks: the guest stands still for moments, and images in the scratch folder outlive the job. */
import { describe, it } from 'vitest';
import { libvirtNeeds } from '../peers/libvirt.ts';
import { expectSuccess, killAtEveryQuestion } from './kill-at-questions.ts';
import { openLibvirtSite } from './libvirt-site.ts';

const needs = await libvirtNeeds();

describe.skipIf(needs !== null)(`a run at a machine of libvirt, by push${needs === null ? '' : ` (${needs})`}`, () => {
  it('is recovered from by the next one, whenever it was killed', async () => {
    await using site = await openLibvirtSite({ iothread: true });
    await site.boot();
    await expectSuccess(site, 'init', '--kit', 'kit');
    await expectSuccess(site, 'seed', 'web');
    await killAtEveryQuestion(site);
  });
});

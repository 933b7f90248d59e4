import { describe, expect, it } from 'vitest';
import { findJob } from '../../../../hypervisors/kvm/libvirt/backup-job.ts';
import { describeDomain } from '../../../../hypervisors/kvm/libvirt/domain.ts';
import { LibvirtRefused, LibvirtTimedOut } from '../../../../hypervisors/kvm/libvirt/libvirt-errors.ts';
import { virshThatSays } from './virsh-that-says.ts';

const never = new AbortController().signal;

describe('a libvirt that refuses to tell the job of a domain', () => {
  it('is not believed to have none while that runs', async () => {
    const virsh = virshThatSays({ domjobinfo: null, domstats: 'state.state=1\nstate.reason=1\n' });
    await expect(findJob(virsh, 'uuid', never)).rejects.toThrow(LibvirtTimedOut);
  });

  it.each([
    ['is shut off', 'state.state=5\nstate.reason=1\n'],
    ['is gone', new LibvirtRefused('no such domain')],
  ])('has none of one that %s', async (_, domstats) => {
    expect(await findJob(virshThatSays({ domjobinfo: null, domstats }), 'uuid', never)).toBeNull();
  });

  it('is asked no further where it says that there is none', async () => {
    expect(await findJob(virshThatSays({ domjobinfo: 'Job type: None\n' }), 'uuid', never)).toBeNull();
  });
});

describe('the UEFI variables of a domain', () => {
  it.each([
    ['<nvram template="/ovmf">/nvram/web_VARS.fd</nvram>', '/nvram/web_VARS.fd'],
    ['<nvram type="file" format="raw"><source file="/nvram/web_VARS.fd"/></nvram>', '/nvram/web_VARS.fd'],
    ['<nvram type="network"><source protocol="iscsi" name="x"/></nvram>', null],
    ['', null],
  ])('are found in %s', async (nvram, file) => {
    const dumpxml = `<domain><os>${nvram}</os><devices/></domain>`;
    expect((await describeDomain(virshThatSays({ dumpxml }), 'uuid', never)).nvram).toBe(file);
  });
});

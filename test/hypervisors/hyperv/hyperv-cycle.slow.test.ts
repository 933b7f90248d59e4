/** Each way in which a run of a machine of Hyper-V may fail, one by one, at the model. */
import { describe, expect, it } from 'vitest';
import { ChangeTrackingLost, QuiesceUnavailable } from '../../../hypervisors/errors.ts';
import { examineMachine } from '../../../hypervisors/hyperv/examine-hyperv.ts';
import { HypervHosts } from '../../../hypervisors/hyperv/hyperv-hosts.ts';
import type { HypervMachine } from '../../../hypervisors/hyperv/hyperv-machine.ts';
import type { BlockSource, MachineSnapshot, SnapshotOptions } from '../../../hypervisors/hypervisor.ts';
import { describeHypervisorContract } from '../../contract/hypervisor.ts';
import { freeSilently } from './model-disk.ts';
import { ModelLab, quickPace } from './model-lab.ts';

const never = new AbortController().signal;
const mebibyte = 2 ** 20;
type Since = ReadonlyMap<string, Uint8Array | null>;

function openLab(changed: Partial<HypervMachine> = {}): ModelLab {
  const lab = new ModelLab(changed);
  lab.model.addDisk('scsi0:0', Buffer.alloc(2 * mebibyte + 512, 7));
  lab.model.addDisk('scsi0:1', Buffer.alloc(mebibyte));
  return lab;
}

/** One run, as an agent of its own would: `during` looks at the snapshot. Returns the reference points of its disks. */
async function run(
  lab: ModelLab,
  since: Since = new Map(),
  during: (snapshot: MachineSnapshot) => Promise<unknown> = async () => undefined,
  quiesce: SnapshotOptions['quiesce'] = 'prefer',
): Promise<Since> {
  await using connection = lab.connect();
  const options = { quiesce, whenChanging: 'refuse', since } as const;
  await using snapshot = await connection.snapshot({ name: 'web' }, options, never);
  await during(snapshot);
  snapshot.notePublished?.();
  return new Map(snapshot.disks.map(({ label, referencePoint }) => [label, referencePoint]));
}

const isLost = (error: unknown): boolean => error instanceof ChangeTrackingLost;

async function changedBytes(disk: BlockSource | undefined, since: Since): Promise<number> {
  let sum = 0;
  for await (const { length } of disk?.changedExtents(since.get(disk.label) ?? null, never) ?? []) sum += length;
  return sum;
}

/** Throws what the disk throws when it is asked for its changes. */
function asking(label: string, since: Since, found: unknown[]) {
  return async ({ disks }: MachineSnapshot): Promise<void> => {
    const disk = disks.find((each) => each.label === label);
    found.push(await changedBytes(disk, since).catch((error: unknown) => error));
  };
}

function oursOf({ model }: ModelLab): readonly string[] {
  return model.points.filter(({ foreign }) => !foreign).map(({ id }) => id);
}

function expectTidy(lab: ModelLab): void {
  expect(lab.model.checkpoints.filter(({ foreign }) => !foreign)).toEqual([]);
  expect([oursOf(lab).length, lab.model.merging]).toEqual([1, 0]);
}

describe('what changed', () => {
  it('is asked for in windows, however little of one is looked at, and unaligned ranges become whole sectors', async () => {
    using lab = openLab();
    const since = await run(lab);
    Object.assign(lab.model.manners, { windowBytes: 65_536, unaligned: true });
    lab.model.write('scsi0:0', 4096, new Uint8Array(512));
    lab.model.write('scsi0:0', 131_072 - 512, new Uint8Array(1024));
    const found: unknown[] = [];
    await run(lab, since, asking('scsi0:0', since, found));
    expect(found).toEqual([512 * (3 + 4)]);
  });

  it.for([
    ['0xC03A0022', /was changed while it was detached/],
    ['0xC03A0029', /does not know the tracking id/],
    ['0xC03A0021', /its change log grew too large/],
    [null, /32768/],
  ] as const)('is not known where Hyper-V refuses with %s: the disk is read in full', async ([hresult, why]) => {
    using lab = openLab();
    const since = await run(lab);
    lab.model.manners.failures = [{ op: 'changes', failure: { jobState: null, returnValue: 32_768, hresult } }];
    const found: unknown[] = [];
    await run(lab, since, asking('scsi0:0', since, found));
    expect(found).toEqual([expect.objectContaining({ message: expect.stringMatching(why) })]);
    expect(found.every(isLost)).toBe(true);
  });

  it('that is not known time and again is told by doctor, until it is known again', async () => {
    using lab = openLab();
    const told = async (): Promise<readonly string[]> => {
      await using hosts = new HypervHosts();
      const { findings } = await examineMachine(await hosts.site(lab.machine, quickPace, never), never);
      return findings.filter(({ disk }) => disk === 'scsi0:0').map(({ what }) => what);
    };
    let since = await run(lab);
    for (const times of [0, 1, 2]) {
      expect(await told()).toEqual(times < 2 ? [] : [expect.stringMatching(/^2 times in a row .*tracking id/)]);
      lab.model.disk('scsi0:0').epoch++;
      if (times < 2) since = await run(lab, since, asking('scsi0:0', since, []));
    }
    since = await run(lab);
    await run(lab, since, asking('scsi0:0', since, []));
    expect(await told()).toEqual([]);
  });

  it.for([
    ['it looked at nothing', { processed: '0', offsets: [], lengths: [] }],
    ['it looked at more than it was asked for', { processed: '99999999', offsets: [], lengths: [] }],
    ['it names more places than lengths', { processed: '512', offsets: ['0'], lengths: [] }],
    ['it names a place outside of the window', { processed: '512', offsets: ['1048576'], lengths: ['512'] }],
    ['it names nothing as changed', { processed: '512', offsets: ['0'], lengths: ['0'] }],
  ] as const)('is not believed where %s', async ([, answer]) => {
    using lab = openLab();
    const since = await run(lab);
    lab.forge = (op) => (op === 'changes' ? answer : null);
    const found: unknown[] = [];
    await run(lab, since, asking('scsi0:0', since, found));
    expect(found.every(isLost)).toBe(true);
  });

  it.for([
    [
      'its size changed',
      (lab: ModelLab) => Object.assign(lab.model.disk('scsi0:1'), { content: Buffer.alloc(2 * mebibyte) }),
    ],
    [
      'another disk is attached',
      (lab: ModelLab) => Object.assign(lab.model.disk('scsi0:1'), { identity: '11111111-2222-4333-8444-555555555555' }),
    ],
    ['somebody removed the reference point', (lab: ModelLab) => lab.model.removePoint(oursOf(lab)[0] ?? '')],
  ] as const)('is not guessed where %s', async ([, happens]) => {
    using lab = openLab();
    const since = await run(lab);
    happens(lab);
    const found: unknown[] = [];
    await run(lab, since, asking('scsi0:1', since, found));
    expect(found.every(isLost)).toBe(true);
  });

  it('is also what no file holds any more, though tracking does not say so: cut off and added again, or given back', async () => {
    using lab = new ModelLab();
    const disk = lab.model.addDisk('scsi0:0', Buffer.alloc(5 * mebibyte + 1024, 7));
    const since = await run(lab);
    freeSilently(disk, mebibyte, mebibyte);
    freeSilently(disk, 4 * mebibyte, mebibyte + 1024);
    lab.model.write('scsi0:0', 3 * mebibyte, new Uint8Array(512).fill(1));
    lab.model.write('scsi0:0', 3 * mebibyte - 512, new Uint8Array(512).fill(2));
    const found: unknown[] = [];
    await run(lab, since, async ({ disks: [source] }) => {
      for await (const extent of source?.changedExtents(since.get('scsi0:0') ?? null, never) ?? []) found.push(extent);
    });
    expect(found).toEqual([
      { offset: mebibyte, length: mebibyte, zero: true },
      { offset: 3 * mebibyte - 512, length: 1024, zero: false },
      { offset: 4 * mebibyte, length: mebibyte + 1024, zero: true },
    ]);
  });

  it('is not asked for where the machine is of an older configuration version, or the operator wants none', async () => {
    using old = openLab();
    old.model.manners.version = '5.0';
    expect([...(await run(old)).values()]).toEqual([null, null]);
    using left = openLab({ tracking: 'leave' });
    expect([...(await run(left)).values()]).toEqual([null, null]);
  });
});

describe('a checkpoint', () => {
  it.for([8, 9, 10] as const)(
    'whose job ends in state %i is taken without the guest, where policy allows',
    async (jobState) => {
      using lab = openLab();
      lab.model.manners.failures = [{ op: 'checkpoint', failure: { jobState, returnValue: 32_768, hresult: null } }];
      let reached = '';
      let summary = '';
      await run(lab, new Map(), async (snapshot) => {
        reached = await snapshot.settleConsistency(never);
        summary = new TextDecoder().decode(
          snapshot.attachments.find(({ name }) => name === 'hyperv-machine.json')?.bytes,
        );
      });
      expect(reached).toBe('crash-consistent');
      expect(JSON.parse(summary)).toMatchObject({
        ...{ generation: 2, firmware: 'uefi', secureBoot: true, tpmContent: 'none' },
        consistency: { reached: 'crash-consistent', fellBack: expect.stringContaining(`job state ${jobState}`) },
      });
      expectTidy(lab);
    },
  );

  it('without the guest is none, where it is required', async () => {
    using lab = openLab();
    lab.model.manners.vssFails = true;
    await expect(run(lab, new Map(), undefined, 'require')).rejects.toThrow(QuiesceUnavailable);
    lab.model.manners.enabledState = 3;
    await expect(run(lab, new Map(), undefined, 'require')).rejects.toThrow(QuiesceUnavailable);
    expect(lab.model.checkpoints).toEqual([]);
  });

  it('is waited for through every state of its job', async () => {
    using lab = openLab();
    lab.model.manners.jobStates = [2, 3, 4, 5, 6, 4];
    await run(lab);
    expectTidy(lab);
  });

  it('that failed and is there all the same is removed again', async () => {
    using lab = openLab();
    const failure = { jobState: 10, returnValue: 32_768, hresult: null, happensAnyway: true } as const;
    lab.model.manners.failures = [{ op: 'checkpoint', failure }];
    await run(lab);
    expectTidy(lab);
  });

  it('that is given up while it is made does not stay', async () => {
    for (const op of ['checkpoint', 'job']) {
      using lab = openLab();
      lab.model.manners.jobStates = [2, 3, 4, 4];
      const gone = new AbortController();
      const reason = new Error('enough');
      lab.forge = (asked) => {
        if (asked === op) gone.abort(reason);
        return null;
      };
      await using connection = lab.connect();
      const options = { quiesce: 'prefer', whenChanging: 'refuse' } as const;
      await expect(connection.snapshot({ name: 'web' }, options, gone.signal)).rejects.toBe(reason);
      expect([lab.model.checkpoints, lab.model.merging]).toEqual([[], 0]);
    }
  });

  it('that somebody removes meanwhile makes the run fail', async () => {
    using lab = openLab();
    const outcome = run(lab, new Map(), async (snapshot) => {
      lab.model.removeCheckpoint(lab.model.checkpoints[0]?.id ?? '');
      await snapshot.settleConsistency(never);
    });
    await expect(outcome).rejects.toMatchObject({ code: 'HYPERV_SNAPSHOT_GONE' });
  });

  it("is not taken beside another product's, nor on another node, nor of a machine that is saved or on its way", async () => {
    using lab = openLab();
    const { manners } = lab.model;
    manners.owner = 'HV-NODE-2';
    await expect(run(lab)).rejects.toMatchObject({ code: 'HYPERV_ELSEWHERE', message: /runs on HV-NODE-2/ });
    manners.owner = null;
    for (const [enabledState, status] of [
      [6, [2]],
      [9, [2]],
      [2, [2, 32_774]],
      [32_770, [2]],
    ] as const) {
      Object.assign(manners, { enabledState, status });
      await expect(run(lab)).rejects.toMatchObject({ code: 'HYPERV_BUSY' });
    }
    Object.assign(manners, { enabledState: 2, status: [2] });
    const theirs = lab.model.makeCheckpoint('another product', true);
    await expect(run(lab)).rejects.toMatchObject({ code: 'HYPERV_BUSY', message: /another product/ });
    expect(lab.model.checkpoints).toEqual([theirs]);
  });

  it('is not taken where it might fill the volume, which doctor tells before', async () => {
    using lab = openLab();
    lab.model.manners.freeBytes = 2 ** 30;
    await expect(run(lab)).rejects.toMatchObject({ code: 'HYPERV_VOLUME_FULL', message: /1073741824 bytes are left/ });
    expect(lab.model.checkpoints).toEqual([]);
    await using hosts = new HypervHosts();
    const { findings } = await examineMachine(await hosts.site(lab.machine, quickPace, never), never);
    expect(findings.map(({ what }) => what)).toContainEqual(expect.stringMatching(/no checkpoint is taken below/));
  });

  it('stands on those that users made, and reads through them', async () => {
    using lab = openLab();
    lab.model.makeCheckpoint('before the upgrade', false);
    lab.model.write('scsi0:0', 1024, new Uint8Array(512).fill(9));
    await run(lab, new Map(), async ({ disks: [disk] }) => {
      const bytes = new Uint8Array(2048);
      await disk?.read(0, bytes, never);
      expect([bytes[0], bytes[1024], bytes[1536]]).toEqual([7, 9, 7]);
    });
    expect(lab.model.checkpoints.map(({ name }) => name)).toEqual(['before the upgrade']);
  });

  it.for(['EBUSY', 4])('has files that somebody else may have for a moment (%s)', async (code) => {
    using lab = openLab();
    Object.assign(lab, { held: 3, heldAs: { code } });
    await run(lab);
    expectTidy(lab);
    lab.held = 1000;
    await expect(run(lab)).rejects.toThrow(/can't be opened/);
    expect(lab.model.checkpoints).toEqual([]);
  });

  it('leaves out disks that no checkpoint holds, and says why', async () => {
    using lab = openLab();
    lab.model.disk('scsi0:1').shared = true;
    let excluded: MachineSnapshot['excluded'] = [];
    await run(lab, new Map(), async (snapshot) => {
      excluded = snapshot.excluded;
    });
    expect(excluded).toEqual([{ label: 'scsi0:1', reason: expect.stringMatching(/shared by several machines/) }]);
  });
});

describe('afterwards', () => {
  it('an earlier reference point goes only when the new point is published', async () => {
    using lab = openLab();
    const since = await run(lab);
    const [first] = oursOf(lab);
    await using connection = lab.connect();
    const options = { quiesce: 'prefer', whenChanging: 'refuse', since } as const;
    await (await connection.snapshot({ name: 'web' }, options, never))[Symbol.asyncDispose]();
    expect(oursOf(lab)).toEqual([first]);
    await run(lab, since);
    expect(oursOf(lab)).not.toContain(first);
    expectTidy(lab);
  });

  it('a checkpoint that becomes no reference point leaves the earlier one to ask by, whose changes are more', async () => {
    using lab = openLab();
    const first = await run(lab);
    const [point] = oursOf(lab);
    lab.model.write('scsi0:0', 0, new Uint8Array(512));
    lab.model.manners.failures = [{ op: 'convert', failure: { jobState: 10, returnValue: 32_768, hresult: null } }];
    const second = await run(lab, first);
    expect(oursOf(lab)).toEqual([point]);
    lab.model.write('scsi0:0', 8192, new Uint8Array(512));
    const found: unknown[] = [];
    await run(lab, second, asking('scsi0:0', second, found));
    expect(found).toEqual([1024]);
    expectTidy(lab);
  });

  it.for([5, 32_774, 32_775])(
    'an earlier reference point that is in use (%i) is removed once it is not',
    async (returnValue) => {
      using lab = openLab();
      const since = await run(lab);
      const failure = { jobState: null, returnValue, hresult: null } as const;
      lab.model.manners.failures = [1, 2].map(() => ({ op: 'destroy-reference-point', failure }));
      await run(lab, since);
      expectTidy(lab);
    },
  );

  it('a merge that is switched off, or failed, is asked for again, and one that never ends is told', async () => {
    using lab = openLab();
    Object.assign(lab.model.manners, { mergesDisks: false, mergeRefusals: 3 });
    await run(lab);
    expectTidy(lab);
    lab.model.manners.mergeRefusals = 1000;
    await expect(run(lab)).rejects.toMatchObject({ code: 'HYPERV_SNAPSHOT_STUCK', message: /does not merge.*19100/ });
    await expect(run(lab)).rejects.toMatchObject({ code: 'HYPERV_SNAPSHOT_STUCK' });
    expect(lab.model.checkpoints).toEqual([]);
  });

  it('the next owner of a cluster finishes what the last one began, by the same journal', async () => {
    using lab = openLab();
    const first = await run(lab);
    lab.model.write('scsi0:0', 0, new Uint8Array(512));
    let second: Since = new Map();
    const dying = run(lab, first, async ({ disks }) => {
      second = new Map(disks.map(({ label, referencePoint }) => [label, referencePoint]));
      // Published, and then the node dies: the machine starts on another one.
      lab.death = { after: 0, happens: false };
    });
    await expect(dying).rejects.toThrow();
    lab.death = null;
    lab.model.manners.owner = 'HV-NODE-2';
    await expect(run(lab, second)).rejects.toMatchObject({ code: 'HYPERV_ELSEWHERE' });
    expect(lab.model.checkpoints.length).toBe(1);
    lab.model.manners.owner = 'hv-node-1';
    const found: unknown[] = [];
    await run(lab, second, asking('scsi0:0', second, found));
    expect(found).toEqual([0]);
    expectTidy(lab);
  });

  it.for([true, false])(
    'what a machine took along when it moved is not taken for gone (published: %s)',
    async (publishes) => {
      using lab = openLab();
      // The name would give it away.
      lab.model.manners.keepsNames = false;
      const first = await run(lab);
      lab.model.write('scsi0:0', 0, new Uint8Array(512));
      let second: Since = first;
      const moved = await run(lab, first, async (snapshot) => {
        await changedBytes(snapshot.disks[0], first);
        if (publishes) second = new Map(snapshot.disks.map(({ label, referencePoint }) => [label, referencePoint]));
        lab.model.manners.owner = 'HV-NODE-2';
        if (!publishes) throw new Error('enough');
      }).catch((error: unknown) => error);
      expect(moved instanceof SuppressedError ? moved.error : moved).toMatchObject({ code: 'HYPERV_ELSEWHERE' });
      expect([lab.model.checkpoints.length, oursOf(lab).length]).toEqual([1, 1]);
      lab.model.manners.owner = null;
      const found: unknown[] = [];
      await run(lab, second, asking('scsi0:0', second, found));
      expect(found).toEqual([publishes ? 0 : 512]);
      expectTidy(lab);
    },
  );

  it('a journal that is broken lets nothing be asked of the host', async () => {
    using lab = openLab();
    await run(lab);
    lab.spoilJournal();
    const asked = lab.transcript.length;
    await expect(run(lab)).rejects.toMatchObject({ code: 'HYPERV_JOURNAL_UNUSABLE' });
    expect(lab.transcript.length).toBe(asked);
  });
});

describe('a death at any step', () => {
  it.for([false, true])(
    'is recovered from by the next run, which knows what changed (what was asked for happens: %s)',
    async (happens) => {
      const steps = await stepsOfARun();
      expect(steps).toBeGreaterThan(20);
      const all = Array.from({ length: steps }, (_, i) => i + 1);
      // Waiting for the disk of the journal is most of it.
      await Promise.all(all.map((step) => dieAt(step, happens)));
    },
  );

  async function stepsOfARun(): Promise<number> {
    using lab = openLab();
    const since = await run(lab);
    const before = lab.transcript.length;
    await run(lab, since, (snapshot) => changedBytes(snapshot.disks[0], since));
    return (lab.transcript.length - before) / 2;
  }

  async function dieAt(step: number, happens: boolean): Promise<void> {
    using lab = openLab();
    const first = await run(lab);
    lab.model.write('scsi0:0', 512 * step, new Uint8Array(512).fill(1));
    lab.death = { after: step, happens };
    let published: Since = first;
    const dying = run(lab, first, async ({ disks }) => {
      await changedBytes(disks[0], first);
      published = new Map(disks.map(({ label, referencePoint }) => [label, referencePoint]));
    });
    await expect(dying, `step ${step}`).rejects.toThrow();
    lab.death = null;
    // More may be told than what changed since, never less.
    const least = published === first ? 512 : 0;
    const found: unknown[] = [];
    await run(lab, published, asking('scsi0:0', published, found));
    expect([least, 512], `step ${step}: ${found}`).toContain(found[0]);
    expectTidy(lab);
  }
});

describeHypervisorContract('a machine of the model of Hyper-V', async () => {
  const lab = openLab();
  const connection = lab.connect();
  return {
    ...{ connection, machineName: 'web' },
    content: async () => new Map(lab.model.disks.map(({ label, content }) => [label, new Uint8Array(content)])),
    write: async (label, offset, bytes) => lab.model.write(label, offset, bytes),
    async [Symbol.asyncDispose]() {
      await connection[Symbol.asyncDispose]();
      lab[Symbol.dispose]();
    },
  };
});

import { type ModelHost, modelNode, modelVm, WmiRefusal } from './model-host.ts';

/** The worker's protocol over the model: the same lines that hyperv-worker.ps1 reads and writes. */

interface Question {
  readonly id: number;
  readonly op: string;
  readonly args: Readonly<Record<string, string>>;
}

export function answerLine(host: ModelHost, line: string): string {
  const question: Question = JSON.parse(line);
  host.tick();
  try {
    return JSON.stringify({ id: question.id, ok: true, value: answer(host, question) });
  } catch (error) {
    if (!(error instanceof WmiRefusal)) throw error;
    const { kind, message, failure } = error;
    return JSON.stringify({ id: question.id, ok: false, error: { kind, message, ...pick(failure) } });
  }
}

function pick({ returnValue, hresult }: { readonly returnValue: number; readonly hresult: string | null }) {
  return { returnValue, hresult };
}

function answer(host: ModelHost, { op, args }: Question): unknown {
  const text = (name: string): string => args[name] ?? '';
  const { owner } = host.manners;
  if (owner !== null && owner.toLowerCase() !== modelNode.toLowerCase() && ofTheMachine.includes(op))
    return op === 'machine' ? elsewhere(host, owner) : nothingThere();
  switch (op) {
    case 'hello':
      return hello(host);
    case 'machines':
      return { machines: [stateOf(host)] };
    case 'machine':
      if (text('vm') !== modelVm) throw new WmiRefusal('not-found', { returnValue: 32_779, hresult: null });
      return stateOf(host);
    case 'checkpoint':
      return startCheckpoint(host, text('name'), text('consistency'));
    case 'checkpoint-disks':
      return { disks: checkpointDisks(host, text('checkpoint')) };
    case 'checkpoint-documents':
      return { documents: [{ kind: 'Msvm_VirtualSystemSettingData', text: '<INSTANCE CLASSNAME="model"/>' }] };
    case 'job':
      return jobOf(host, text('job'));
    case 'convert':
      return host.start(op, { kind: 'convert', id: text('checkpoint') });
    case 'destroy-checkpoint':
      return destroy(host, op, text('checkpoint'));
    case 'destroy-reference-point':
      return destroy(host, op, text('referencePoint'));
    case 'enable-merging':
      host.enableMerging();
      return null;
    case 'changes':
      return changes(host, args);
    case 'free-space':
      return { volumes: [{ path: host.folder, freeBytes: String(host.manners.freeBytes) }] };
    default:
      throw new Error(`the model knows no ${op}`);
  }
}

const ofTheMachine = [
  ...['machine', 'checkpoint', 'checkpoint-disks', 'checkpoint-documents', 'job', 'convert', 'destroy-checkpoint'],
  ...['destroy-reference-point', 'enable-merging'],
];

/** Another node has it: this one knows who, and nothing else. */
function elsewhere(host: ModelHost, owner: string): unknown {
  return {
    ...{
      id: modelVm,
      name: '',
      version: '0',
      generation: 1,
      state: 0,
      status: [],
      replication: 0,
      owner,
      node: modelNode,
    },
    ...{
      now: host.now().toISOString(),
      mergesDisks: true,
      secureBoot: false,
      tpm: false,
      processors: 0,
      memoryMiB: '0',
    },
    ...{ quiesces: false, disks: [], checkpoints: [], referencePoints: [] },
  };
}

function nothingThere(): never {
  throw new WmiRefusal('not-found', { returnValue: 32_779, hresult: null });
}

function hello(host: ModelHost): unknown {
  return {
    ...{ protocol: 1, powershell: '5.1.20348.1', host: modelNode, system: 'model, 10.0.20348', elevated: true },
    ...{ administersHyperv: host.manners.administers, cluster: null, now: host.now().toISOString() },
  };
}

function stateOf(host: ModelHost): unknown {
  const { version, enabledState, status, owner, mergesDisks, generation, replication, quiesces } = host.manners;
  return {
    ...{
      id: modelVm,
      name: 'web (as Hyper-V has it)',
      version,
      generation,
      state: enabledState,
      owner,
      node: modelNode,
    },
    status: [...status, ...workOf(host)],
    ...{ replication, now: host.now().toISOString(), mergesDisks, secureBoot: generation === 2, tpm: false },
    ...{ processors: 2, memoryMiB: '4096', quiesces },
    disks: host.disks.map(({ key, label, leaf, content, passThrough, shared }) => ({
      ...{ key, label, path: leaf.path, capacityBytes: String(content.length), passThrough, shared },
    })),
    checkpoints: host.checkpoints.map(({ id, name, recovery, createdAt }) => ({ id, name, recovery, createdAt })),
    referencePoints: host.points.map(({ id, disks }) => ({ id, disks })),
  };
}

/** What the machine's operational status says of it: taking a checkpoint, merging. */
function workOf({ jobs, merging, manners, points }: ModelHost): readonly number[] {
  const left = points.filter(({ foreign }) => !foreign).length > 1;
  const merges = merging > 0 && manners.mergesDisks && manners.mergeRefusals === 0 && !left;
  return [...(jobs.some(({ states }) => states.length > 0) ? [32_768] : []), ...(merges ? [32_772] : [])];
}

function startCheckpoint(host: ModelHost, name: string, consistency: string): unknown {
  const busy = host.checkpoints.some(({ recovery }) => recovery);
  if (busy) throw new WmiRefusal('refused', { returnValue: 32_774, hresult: null });
  if (consistency === 'application' && host.manners.vssFails)
    host.manners.failures.push({
      op: 'checkpoint',
      failure: { jobState: 10, returnValue: 32_768, hresult: '0x800423F4' },
    });
  return host.start('checkpoint', { kind: 'checkpoint', name, recovery: true, foreign: false });
}

function checkpointDisks(host: ModelHost, id: string): unknown {
  const checkpoint = host.checkpoints.find((each) => each.id === id);
  if (checkpoint === undefined) throw new WmiRefusal('not-found', { returnValue: 32_779, hresult: null });
  return host.disks.flatMap(({ key, label, frozen, content, passThrough, shared }) => {
    const file = frozen.findLast(({ writes }) => writes === checkpoint.writes[key]);
    if (file === undefined) return [];
    return [{ key, label, path: file.path, capacityBytes: String(content.length), passThrough, shared }];
  });
}

function jobOf(host: ModelHost, id: string): unknown {
  const { states, failure, made } = host.job(id);
  const [state = failure?.jobState ?? 7] = states;
  const failed = states.length === 0 && failure !== null;
  return {
    ...{ state, errorCode: failed ? failure.returnValue : 0, hresult: failed ? failure.hresult : null, made },
    description: failed ? 'Ein Fehler in der Sprache des Hosts.' : '',
  };
}

function destroy(host: ModelHost, op: string, id: string): unknown {
  const isThere = [...host.checkpoints, ...host.points].some((each) => each.id === id);
  if (!isThere) throw new WmiRefusal('not-found', { returnValue: 32_779, hresult: null });
  return host.start(op, { kind: 'destroy', id });
}

function changes(host: ModelHost, args: Question['args']): unknown {
  const at = host.manners.failures.findIndex(({ op }) => op === 'changes');
  const [failing] = at < 0 ? [] : host.manners.failures.splice(at, 1);
  if (failing !== undefined) throw new WmiRefusal('refused', failing.failure);
  const { path = '', since = '', offset, length } = args;
  const found = host.changes(path, since, Number(offset), Number(length));
  return {
    processed: String(found.processed),
    ...{ offsets: found.offsets.map(String), lengths: found.lengths.map(String) },
  };
}

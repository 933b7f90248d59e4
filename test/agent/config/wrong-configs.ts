/** Seven lines long; further keys may be appended, or another machine with two blanks before its dash. */
export const validConfig = `repository: { target: filesystem, directory: bucket }
keys: { provider: local-key, file: keys/wrap.key }
# A comment, so that lines and keys differ.
machines:
  - name: web-1
    source: &s { type: image, disks: [{ label: root, path: /var/lib/vm/web.raw }] }
`;

export interface WrongConfig {
  readonly title: string;
  readonly yaml: string;
  /** What follows the file's name in the message. */
  readonly says: string;
}

/** Operators' mistakes, one each, and what they are told. */
export const wrongConfigs: readonly WrongConfig[] = [
  appended('a misspelt key', 'segmentMib: 8', ':7: segmentMib: unknown key `segmentMib`: did you mean `segmentMiB`?'),
  appended(
    'a key in snake case',
    'segment_mib: 8',
    ':7: segment_mib: unknown key `segment_mib`: did you mean `segmentMiB`?',
  ),
  appended(
    'a key that resembles nothing',
    'colour: red',
    ':7: colour: unknown key: known here are repository, rootFingerprint, keys, access, state, sources, machines, segmentMiB, compression, limits, spotCheck, changeAlarm, compaction, retention, groups, logging',
  ),
  appended(
    'a misspelt key further in',
    'limits:\n  worker: 2',
    ':8: limits.worker: unknown key `worker`: did you mean `workers`?',
  ),
  appended('an empty group', 'limits:', ':7: limits: is empty: give it a value or remove the key'),
  appended('a text for a number', 'segmentMiB: eight', ':7: segmentMiB: must be a number, not a text'),
  appended('a fraction', 'segmentMiB: 8.5', ':7: segmentMiB: must be a whole number'),
  appended(
    'spot checks in negative days',
    'spotCheck: { everyDays: -1 }',
    ':7: spotCheck.everyDays: must be at least 0',
  ),
  appended('a number too small', 'segmentMiB: 2', ':7: segmentMiB: must be at least 4'),
  appended('a number too large', 'segmentMiB: 33', ':7: segmentMiB: must be at most 32'),
  appended(
    'no speed at all',
    'limits: { uploadMbitPerSecond: 0 }',
    ':7: limits.uploadMbitPerSecond: must be more than 0',
  ),
  appended(
    'a value near an allowed one',
    'access: writeonly',
    ':7: access: must be one of full, write-only: did you mean write-only?',
  ),
  appended(
    'a group of a machine that is not there',
    'groups: [{ name: dbs, machines: [web-2], retention: { last: 1 } }]',
    ':7: groups[0].machines[0]: there is no machine web-2: did you mean web-1?',
  ),
  appended(
    'a machine in two groups',
    'groups: [{ name: dbs, machines: [web-1], retention: { last: 1 } },\n  { name: webs, machines: [web-1], retention: { last: 1 } }]',
    ':8: groups[1].machines[0]: web-1 is in group dbs: a machine is in one',
  ),
  appended(
    'a group twice',
    'groups: [{ name: dbs, machines: [web-1], retention: { last: 1 } },\n  { name: dbs, machines: [web-1], retention: { last: 1 } }]',
    ':8: groups[1].name: is the name of another group: dbs',
  ),
  appended(
    'a group without a retention',
    'groups: [{ name: dbs, machines: [web-1] }]',
    ':7: groups[0].retention: is missing',
  ),
  appended('the same key twice', 'keys: {}', ':7: the same key stands here twice'),
  appended('a tab for indentation', 'limits:\n\tworkers: 2', ':8: a tab may not indent: use blanks'),
  appended('a machine without a source', '  - name: web-2', ':7: machines[1].source: is missing'),
  appended(
    'a name twice',
    '  - { name: web-1, source: *s }',
    ':7: machines[1].name: is the name of another machine: web-1',
  ),
  appended(
    'a name with a control character',
    '  - { name: "a\\tb", source: *s }',
    ':7: machines[1].name: must hold printable characters only',
  ),
  appended(
    'a name too long',
    `  - { name: ${'n'.repeat(201)}, source: *s }`,
    ':7: machines[1].name: must have at most 200 characters',
  ),
  appended('no name', '  - { name: "", source: *s }', ':7: machines[1].name: must not be empty'),
  appended('a number for a name', '  - { name: 7, source: *s }', ':7: machines[1].name: must be a text, not a number'),
  appended(
    'a source that is not there yet',
    '  - { name: web-2, source: { type: xen } }',
    ':7: machines[1].source.type: must be one of image, kvm, vsphere, hyperv',
  ),
  appended(
    'a machine of a vCenter that is not named',
    `  - { name: web-2, source: { type: vsphere, from: site-a, instanceUuid: ${'5029'.repeat(2)}-5029-5029-5029-${'5029'.repeat(3)} } }`,
    ':7: machines[1].source.from: names no source of type vsphere that there is under sources: there is none',
  ),
  appended(
    'the password of a vCenter',
    'sources: [{ name: a, type: vsphere, server: vc, user: u, password: open-sesame }]',
    `:7: sources[0].password: is a secret and must not stand in this file: write a reference instead: \${env:NAME} or \${file:/path}`,
  ),
  appended(
    'a machine without disks',
    '  - { name: web-2, source: { type: image, disks: [] } }',
    ':7: machines[1].source.disks: must not be empty',
  ),
  appended(
    'two disks of one label',
    '  - name: web-2\n    source:\n      type: image\n      disks:\n        - { label: a, path: a }\n        - { label: a, path: b }',
    ':12: machines[1].source.disks[1].label: another disk has the same label: a',
  ),
  appended(
    'one disk twice',
    '  - { name: web-2, source: { type: image, disks: [{ label: a, path: /x/a }, { label: b, path: /x/./a }] } }',
    ':7: machines[1].source.disks[1].path: another disk has the same path: /x/a',
  ),
  appended(
    'a freeze that nothing can do',
    '  - { name: web-2, source: *s, quiesce: require }',
    ':7: machines[1].quiesce: an image source can not freeze a guest: use prefer or off',
  ),
  appended(
    'a reference where no secret is',
    `state: \${env:STATE}`,
    ':7: state: references work for secrets only: write the value itself',
  ),
  appended('machines that are no list', 'logging: []', ':7: logging: must be a group of keys, not a list'),
  whole('a text instead of a configuration', 'hello', ':1: must be a group of keys, not a text'),
  whole(
    'two documents',
    `${validConfig}---\n{}\n`,
    ':7: a configuration is one YAML document: remove what follows ---',
  ),
  whole(
    'an alias that points nowhere',
    'keys: *k\n',
    ':1: a value that begins with * is an alias in YAML: put it in quotes',
  ),
  withRepository('no target', '{ directory: bucket }', '.target: is missing: one of filesystem, s3, azure-blob, gcs'),
  withRepository(
    'an unknown target',
    '{ target: S3 }',
    '.target: must be one of filesystem, s3, azure-blob, gcs: did you mean s3?',
  ),
  withRepository('no region', '{ target: s3, bucket: a-bucket }', '.region: is missing: it must be a text'),
  withRepository(
    'a bucket that is an address',
    '{ target: s3, bucket: "s3://a-bucket", region: r }',
    '.bucket: must be a bucket name: a-z, 0-9, dots and hyphens',
  ),
  withRepository(
    'an endpoint without a scheme',
    '{ target: s3, bucket: a-bucket, region: r, endpoint: localhost:9000 }',
    '.endpoint: must be an http:// or https:// address',
  ),
  withRepository(
    'a prefix that climbs',
    '{ target: s3, bucket: a-bucket, region: r, prefix: a/../b }',
    '.prefix: must not hold //, /./ or /../',
  ),
  withRepository(
    'a key of the other target',
    '{ target: s3, bucket: a-bucket, region: r, directory: d }',
    '.directory: unknown key: known here are target, bucket, prefix, region, endpoint, pathStyle, immutability, caFile, proxy, credentials',
  ),
  withRepository(
    'credentials without saying from where',
    '{ target: s3, bucket: a-bucket, region: r, credentials: { profile: p } }',
    '.credentials.from: is missing: one of chain, profile, access-key, assume-role',
  ),
];

function appended(title: string, lines: string, says: string): WrongConfig {
  return { title, yaml: `${validConfig}${lines}\n`, says };
}

function whole(title: string, yaml: string, says: string): WrongConfig {
  return { title, yaml, says };
}

function withRepository(title: string, repository: string, says: string): WrongConfig {
  const yaml = `keys: { provider: local-key, file: wrap.key }\nrepository: ${repository}\n`;
  return { title, yaml, says: `:2: repository${says}` };
}

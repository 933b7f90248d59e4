/** Folders are the architecture: who may import whom, and where a cloud SDK may be loaded. */
import { posix } from 'node:path';
import { type AstNode, child, nameOf, type Rule, type SourceFile, type Violation, violation } from './source-tree.ts';

interface Import {
  readonly file: SourceFile;
  readonly node: AstNode;
  readonly specifier: string;
  /** The imported file from the root, or the package's specifier as written. */
  readonly target: string;
  readonly relative: boolean;
  readonly dynamic: boolean;
  readonly typeOnly: boolean;
}

const storageContract = ['storage-targets/storage-target.ts', 'storage-targets/errors.ts'];
const lowerFolders = ['replica/', 'crypto/', 'storage-targets/', 'hypervisors/'];

/** What each folder may import besides itself. The longest matching folder decides. */
const mayImport: Readonly<Record<string, readonly string[]>> = {
  'agent/': ['restore/', 'drill/', 'management-plane/', ...lowerFolders],
  'restore/': lowerFolders,
  'drill/': lowerFolders,
  'replica/': ['crypto/', ...storageContract],
  'crypto/': [],
  'storage-targets/': [],
  'hypervisors/': [],
  'management-plane/': [],
  'management-plane/client/': ['management-plane/protocol/', 'crypto/'],
  'management-plane/server/': ['management-plane/protocol/', 'crypto/signing'],
  'management-plane/portal/': ['management-plane/protocol/'],
  'bench/': ['agent/', 'restore/', 'test/', ...lowerFolders],
  'test/': ['agent/', 'restore/', 'drill/', 'management-plane/', 'bench/', 'demo/', ...lowerFolders],
  'demo/': ['agent/', 'restore/', 'drill/', ...lowerFolders],
};

export const folderImports: Rule = {
  name: 'imports go only downwards between folders',
  check: (tree) =>
    allImports(tree)
      .filter((found) => found.relative && !isAllowed(found))
      .map(describe),
  breaks: [
    { 'crypto/suite.ts': "import { put } from '../storage-targets/s3.ts';" },
    { 'hypervisors/image/disk.ts': "import type { Segment } from '../../replica/segment.ts';" },
    { 'storage-targets/s3.ts': "const { seal } = await import('../crypto/suite.ts');" },
    { 'replica/chain.ts': "import { FilesystemTarget } from '../storage-targets/filesystem.ts';" },
    { 'restore/plan.ts': "import { config } from '../agent/config/load.ts';" },
    { 'drill/boot.ts': "import { restoreDisk } from '../restore/restore-disk.ts';" },
    { 'agent/wire.ts': "import { canaries } from '../test/canary.ts';" },
    { 'management-plane/server/hub.ts': "import { DataKey } from '../../crypto/data-key.ts';" },
  ],
  allows: [
    { 'agent/wire.ts': "import { restoreDisk } from '../restore/restore-disk.ts'; import { a } from './remedy.ts';" },
    {
      'replica/chain.ts':
        "import { ObjectExists } from '../storage-targets/errors.ts'; import { b } from '../crypto/suite.ts';",
    },
    { 'restore/plan.ts': "import { openChain } from '../replica/chain.ts';" },
    { 'management-plane/server/hub.ts': "import { verify } from '../../crypto/signing.ts';" },
  ],
};

function isAllowed({ file, target }: Import): boolean {
  const folder = Object.keys(mayImport)
    .filter((name) => file.path.startsWith(name))
    .sort((a, b) => b.length - a.length)[0];
  if (folder === undefined) return !file.path.includes('/');
  return target.startsWith(folder) || (mayImport[folder] ?? []).some((allowed) => target.startsWith(allowed));
}

function describe(found: Import): Violation {
  return violation(found.file, found.node.start, `${found.file.path} must not import ${found.target}`);
}

const cloudSdk = /^(@aws-sdk|@aws|@smithy|@azure|@google-cloud|google-auth-library)(\/|$)/;
/** An adapter and its parts: `s3.ts`, `s3-errors.ts`, `s3/…`. */
const adapterFile =
  /^(storage-targets\/(s3|azure-blob|gcs)|crypto\/(aws-kms|azure-key-vault|gcp-kms))(-[a-z0-9-]+)?(\.ts|\/)/;

export const cloudSdks: Rule = {
  name: 'a cloud SDK is loaded only by its adapter, and the adapter only when it is configured',
  check: (tree) => {
    const imports = allImports(tree.filter((file) => !/^(test|demo|bench)\//.test(file.path)));
    const loaders = filesThatLoadSdk(imports);
    return imports
      .filter(({ file }) => !adapterFile.test(file.path))
      .filter(({ specifier, target, dynamic, typeOnly }) =>
        cloudSdk.test(specifier) ? true : !dynamic && !typeOnly && loaders.has(target),
      )
      .map((found) =>
        violation(
          found.file,
          found.node.start,
          `only a cloud adapter may load ${found.specifier}; use \`await import\` of the adapter`,
        ),
      );
  },
  breaks: [
    { 'agent/wire.ts': "import { S3Client } from '@aws-sdk/client-s3';" },
    { 'agent/wire.ts': "const { KMSClient } = await import('@aws-sdk/client-kms');" },
    { 'storage-targets/storage-target.ts': "import type { S3Client } from '@aws-sdk/client-s3';" },
    {
      'storage-targets/s3.ts': "import { S3Client } from '@aws-sdk/client-s3';",
      'agent/wire.ts': "import { S3Target } from '../storage-targets/s3.ts';",
    },
    {
      'storage-targets/s3-errors.ts': "import { S3ServiceException } from '@aws-sdk/client-s3';",
      'storage-targets/s3.ts': "import { translate } from './s3-errors.ts';",
      'storage-targets/with-retry.ts': "import { S3Target } from './s3.ts';",
    },
  ],
  allows: [
    {
      'storage-targets/s3.ts': "import { S3Client } from '@aws-sdk/client-s3';",
      'agent/wire.ts':
        "import type { S3Settings } from '../storage-targets/s3.ts'; const s3 = await import('../storage-targets/s3.ts');",
    },
    { 'crypto/aws-kms.ts': "import { KMSClient } from '@aws-sdk/client-kms';" },
  ],
};

/** Files whose static import pulls in a cloud SDK, directly or through other files. */
function filesThatLoadSdk(imports: readonly Import[]): Set<string> {
  const eager = imports.filter(({ dynamic, typeOnly }) => !dynamic && !typeOnly);
  const loaders = new Set<string>();
  for (let before = -1; before < loaders.size; ) {
    before = loaders.size;
    for (const { file, specifier, target } of eager)
      if (cloudSdk.test(specifier) || loaders.has(target)) loaders.add(file.path);
  }
  return loaders;
}

function allImports(tree: readonly SourceFile[]): Import[] {
  return tree.flatMap((file) => file.nodes.flatMap((node) => importOf(file, node)));
}

function importOf(file: SourceFile, node: AstNode): Import[] {
  const specifier = nameOf(child(node, 'source'));
  const dynamic = node.type === 'ImportExpression' || node.type === 'TSImportType';
  const isImport = /^(ImportDeclaration|ExportAllDeclaration|ExportNamedDeclaration)$/.test(node.type) || dynamic;
  if (!isImport || specifier === null) return [];
  const relative = specifier.startsWith('.');
  const target = relative ? posix.join(posix.dirname(file.path), specifier) : specifier;
  return [{ file, node, specifier, target, relative, dynamic, typeOnly: isTypeOnly(node) }];
}

/** `import { type A }` still loads the module under verbatimModuleSyntax: only `import type` does not. */
function isTypeOnly(node: AstNode): boolean {
  return node.type === 'TSImportType' || node.importKind === 'type' || node.exportKind === 'type';
}

export const noBarrels: Rule = {
  name: 'things are imported from the file that defines them',
  check: (tree) =>
    tree.flatMap((file) =>
      file.nodes
        .filter((node) => /^Export(All|Named)Declaration$/.test(node.type) && child(node, 'source') !== null)
        .map((node) => violation(file, node.start, 'no barrels: import from the defining file')),
    ),
  breaks: [
    { 'crypto/all.ts': "export * from './suite.ts';" },
    { 'crypto/all.ts': "export { seal } from './suite.ts';" },
  ],
  allows: [{ 'crypto/suite.ts': 'export const suite = 1; const a = 2; export { a };' }],
};

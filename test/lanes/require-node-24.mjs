// Plain JavaScript on purpose: an older Node must be able to read it, and stops here before it meets any TypeScript.
const wanted = 24;
const found = Number(process.versions.node.split('.')[0]);
if (found < wanted) {
  process.stderr.write(
    `failkit needs Node ${wanted} or later, and this is Node ${process.versions.node} (${process.execPath}).\n` +
      'On Linux x64 `npm ci` installs it and npm scripts then run under it; elsewhere install Node 24 yourself.\n',
  );
  process.exit(1);
}

# A grammar of PowerShell and what runs it (both MIT), from npm as they are, without their install scripts: they check syntax, and run nothing.
command -v npm >/dev/null || { echo 'needs npm'; exit 1; }
cd "$into"
echo '{ "private": true, "type": "module" }' >package.json
npm install --no-audit --no-fund --ignore-scripts --no-save web-tree-sitter@0.27.1 tree-sitter-powershell@0.26.4
ls node_modules/tree-sitter-powershell/*.wasm

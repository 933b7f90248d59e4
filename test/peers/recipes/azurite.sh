# Microsoft's own emulator of Azure Blob storage (MIT): shared keys, SAS, bearer tokens over HTTPS, conditional puts, checksums.
cd "$into"
npm install --no-audit --no-fund --ignore-scripts --omit=optional --prefix "$into" azurite@3.37.0

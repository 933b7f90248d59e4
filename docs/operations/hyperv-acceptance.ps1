<#
Tries on a real Hyper-V host what failkit could not be tried with while it was built, and writes a report.

Run it in an elevated Windows PowerShell 5.1 on the host, with a machine that may be disturbed (generation 2, running, two VHDX disks,
a guest that has the integration services, no other product's checkpoints):

  .\hyperv-acceptance.ps1 -Vm 6f0d7a52-3c7b-4f0e-9a7e-1c2f3a4b5c6d -Worker 'C:\Program Files\failkit\dist\agent\hyperv-worker.ps1' -Report C:\failkit-report

It takes two recovery checkpoints, makes two reference points, and removes all of it again. Between the two it asks you to write a file of
some MiB in the guest. The report holds each question and answer: names of machines and paths among them. Read it before you send it.
#>
param(
  [Parameter(Mandatory = $true)][string]$Vm,
  [Parameter(Mandatory = $true)][string]$Worker,
  [Parameter(Mandatory = $true)][string]$Report,
  [switch]$Unattended
)
Set-StrictMode -Version 2
$ErrorActionPreference = 'Stop'
New-Item -ItemType Directory -Force -Path $Report | Out-Null
$transcript = New-Object System.Collections.Generic.List[string]
$checks = New-Object System.Collections.Generic.List[object]
$script:lastId = 0

function Add-Check([string]$name, [bool]$passed, [string]$seen) {
  $checks.Add([pscustomobject]@{ check = $name; passed = $passed; seen = $seen })
  Write-Host ('{0,-6} {1}: {2}' -f $(if ($passed) { 'ok' } else { 'FAILED' }), $name, $seen)
}

$start = New-Object System.Diagnostics.ProcessStartInfo
$start.FileName = 'powershell.exe'
$start.Arguments = '-NoLogo -NoProfile -NonInteractive -ExecutionPolicy Bypass -File ' + [char]34 + $Worker + [char]34
$start.UseShellExecute = $false
$start.RedirectStandardInput = $true
$start.RedirectStandardOutput = $true
$start.RedirectStandardError = $true
$start.StandardOutputEncoding = New-Object System.Text.UTF8Encoding $false
$process = [System.Diagnostics.Process]::Start($start)

function Send-Question([string]$op, [hashtable]$arguments) {
  $script:lastId++
  $line = @{ id = $script:lastId; op = $op; args = $arguments } | ConvertTo-Json -Compress -Depth 6
  $transcript.Add($line)
  # As UTF-8, whatever code page this console has.
  $bytes = [System.Text.Encoding]::UTF8.GetBytes($line + [char]10)
  $process.StandardInput.BaseStream.Write($bytes, 0, $bytes.Length)
  $process.StandardInput.BaseStream.Flush()
  $answer = $process.StandardOutput.ReadLine()
  if ($null -eq $answer) { throw ('the worker ended: ' + $process.StandardError.ReadToEnd()) }
  $transcript.Add($answer)
  $parsed = $answer | ConvertFrom-Json
  if ($parsed.id -ne $script:lastId) { throw 'an answer to another question' }
  return $parsed
}

function Get-Answer([string]$op, [hashtable]$arguments) {
  $answer = Send-Question $op $arguments
  if (-not $answer.ok) { throw ($op + ' was refused: ' + ($answer.error | ConvertTo-Json -Compress)) }
  return $answer.value
}

# What the job says it made.
function Wait-Made($started) {
  if ($null -eq $started.job) { return @($started.made) }
  for ($i = 0; $i -lt 1200; $i++) {
    $job = Get-Answer 'job' @{ job = $started.job }
    if ($job.state -eq 7) { return @($job.made) }
    if ($job.state -gt 7) { throw ('the job failed: ' + ($job | ConvertTo-Json -Compress)) }
    Start-Sleep -Milliseconds 500
  }
  throw 'the job does not end'
}

function Get-Machine { return Get-Answer 'machine' @{ vm = $Vm; sizes = $true } }

function New-Checkpoint([string]$name) {
  $before = @((Get-Machine).checkpoints | ForEach-Object { $_.id })
  $made = @(Wait-Made (Get-Answer 'checkpoint' @{ vm = $Vm; name = $name; consistency = 'application' }))
  $new = @((Get-Machine).checkpoints | Where-Object { $before -notcontains $_.id })
  Add-Check 'one checkpoint is there, and is a recovery checkpoint' ($new.Count -eq 1 -and $new[0].recovery) ([string]$new.Count)
  Add-Check 'the job, or the call, says which checkpoint it made' ($made -contains $new[0].id) ($made -join ' ')
  Add-Check 'the checkpoint has the name that was asked for' ($new[0].name -eq $name) $new[0].name
  return $new[0]
}

function Test-Files($disks) {
  foreach ($disk in $disks) {
    try {
      $file = New-Object System.IO.FileStream $disk.path, ([System.IO.FileMode]::Open), ([System.IO.FileAccess]::Read), ([System.IO.FileShare]::ReadWrite -bor [System.IO.FileShare]::Delete)
      $head = New-Object byte[] 8
      $count = $file.Read($head, 0, 8)
      $file.Dispose()
      $text = [System.Text.Encoding]::ASCII.GetString($head, 0, $count)
      Add-Check ('the frozen file of ' + $disk.label + ' can be read while the machine runs') ($text -eq 'vhdxfile') ($disk.path + ' ' + $text)
    }
    catch { Add-Check ('the frozen file of ' + $disk.label + ' can be read while the machine runs') $false $_.Exception.Message }
  }
}

function Convert-Checkpoint($checkpoint) {
  $before = @((Get-Machine).referencePoints | ForEach-Object { $_.id })
  $made = @(Wait-Made (Get-Answer 'convert' @{ checkpoint = $checkpoint.id }))
  $state = Get-Machine
  $new = @($state.referencePoints | Where-Object { $before -notcontains $_.id })
  Add-Check 'converting makes one reference point' ($new.Count -eq 1) ([string]$new.Count)
  Add-Check 'the job, or the call, says which reference point it made' ($made -contains $new[0].id) ($made -join ' ')
  Add-Check 'converting removes the checkpoint' (@($state.checkpoints | Where-Object { $_.id -eq $checkpoint.id }).Count -eq 0) ''
  $keys = @($state.disks | ForEach-Object { $_.key })
  foreach ($disk in @($new[0].disks)) {
    Add-Check 'the reference point names disks by the keys that the machine has' ($keys -contains $disk.key) $disk.key
    Add-Check 'the disk has a tracking id' ($disk.tracking -ne '') $disk.tracking
  }
  return $new[0]
}

function Wait-Merge([string[]]$paths) {
  for ($i = 0; $i -lt 600; $i++) {
    $now = @((Get-Machine).disks | ForEach-Object { $_.path })
    if (@(Compare-Object $paths $now).Count -eq 0) { break }
    Start-Sleep -Seconds 1
  }
  Add-Check 'afterwards the machine runs on the files that it ran on before' (@(Compare-Object $paths $now).Count -eq 0) ($now -join ' ')
}

$checkpoint = $null
$points = @()
try {
  $hello = Get-Answer 'hello' @{}
  Add-Check 'the worker answers, and may administer Hyper-V' ($hello.protocol -eq 1 -and $hello.administersHyperv) ($hello.system + ', PowerShell ' + $hello.powershell)
  Add-Check 'all machines are listed' (@((Get-Answer 'machines' @{}).machines).Count -gt 0) ''
  $state = Get-Machine
  $paths = @($state.disks | ForEach-Object { $_.path })
  Add-Check 'its configuration version has resilient change tracking' ([double]::Parse($state.version, [System.Globalization.CultureInfo]::InvariantCulture) -ge 8) $state.version
  Add-Check 'its disks have labels and sizes' (@($state.disks | Where-Object { $_.label -notmatch '^(scsi|ide)\d+:\d+$' -or $null -eq $_.capacityBytes }).Count -eq 0) (($state.disks | ForEach-Object { $_.label + ' ' + $_.capacityBytes }) -join ', ')
  Add-Check 'the guest can be quiesced' $state.quiesces ''
  Add-Check 'a machine that there is not is said not to be found' ((Send-Question 'machine' @{ vm = '00000000-0000-4000-8000-000000000000'; sizes = $false }).error.kind -eq 'not-found') ''
  Add-Check 'free space is known for each disk' (@((Get-Answer 'free-space' @{ paths = $paths }).volumes).Count -eq $paths.Count) ''

  $checkpoint = New-Checkpoint 'failkit-accept01-00000001'
  $disks = @((Get-Answer 'checkpoint-disks' @{ checkpoint = $checkpoint.id }).disks)
  Add-Check 'the disks of the checkpoint have the keys of those of the machine' (@(Compare-Object @($disks | ForEach-Object { $_.key }) @($state.disks | ForEach-Object { $_.key })).Count -eq 0) (($disks | ForEach-Object { $_.key }) -join ' ')
  Add-Check 'the settings of the checkpoint can be had' (@((Get-Answer 'checkpoint-documents' @{ checkpoint = $checkpoint.id }).documents).Count -gt 2) ''
  Test-Files $disks
  $points += Convert-Checkpoint $checkpoint
  $checkpoint = $null
  Wait-Merge $paths

  if (-not $Unattended) { Read-Host 'Write a file of some MiB in the guest now, flush it, and press Enter' | Out-Null }
  $checkpoint = New-Checkpoint 'failkit-accept01-00000002'
  $disks = @((Get-Answer 'checkpoint-disks' @{ checkpoint = $checkpoint.id }).disks)
  foreach ($disk in $disks) {
    $since = @($points[0].disks | Where-Object { $_.key -eq $disk.key })
    if ($since.Count -eq 0) { Add-Check ('changes of ' + $disk.label) $false 'no tracking id'; continue }
    $size = [uint64](@($state.disks | Where-Object { $_.key -eq $disk.key })[0].capacityBytes)
    $changed = [uint64]0
    for ($offset = [uint64]0; $offset -lt $size; ) {
      $length = [Math]::Min([uint64]1073741824, $size - $offset)
      $answer = Get-Answer 'changes' @{ path = $disk.path; since = $since[0].tracking; offset = [string]$offset; length = [string]$length }
      foreach ($each in @($answer.lengths)) { $changed += [uint64]$each }
      if ([uint64]$answer.processed -eq 0) { throw 'no progress' }
      $offset += [uint64]$answer.processed
    }
    Add-Check ('changes of ' + $disk.label + ' are told, and are less than the disk') ($changed -lt $size) ([string]$changed + ' of ' + [string]$size + ' bytes')
    $unknown = Send-Question 'changes' @{ path = $disk.path; since = 'rctX:00000000:0000:0000:0000:00000000'; offset = '0'; length = '1048576' }
    Add-Check 'a disk without changes in the window answers with none' (@((Get-Answer 'changes' @{ path = $disk.path; since = $since[0].tracking; offset = [string]($size - 512); length = '512' }).lengths).Count -le 1) ''
    Add-Check 'an unknown tracking id is refused, by an HRESULT' ((-not $unknown.ok) -and $null -ne $unknown.error.hresult) ($unknown | ConvertTo-Json -Compress -Depth 6)
  }
  $points += Convert-Checkpoint $checkpoint
  $checkpoint = $null
}
catch { Add-Check 'everything could be tried' $false ($_.Exception.Message + ' ' + $_.ScriptStackTrace) }
finally {
  try {
    if ($null -ne $checkpoint) { Wait-Made (Get-Answer 'destroy-checkpoint' @{ checkpoint = $checkpoint.id }) | Out-Null }
    foreach ($point in $points) { Wait-Made (Get-Answer 'destroy-reference-point' @{ referencePoint = $point.id }) | Out-Null }
    Wait-Merge $paths
    $left = Get-Machine
    Add-Check 'nothing is left' (@($left.checkpoints | Where-Object { $_.name -like 'failkit-*' }).Count -eq 0) ''
    Get-Answer 'enable-merging' @{ vm = $Vm } | Out-Null
    Add-Check 'merging can be switched on' ((Get-Machine).mergesDisks) ''
  }
  catch { Add-Check 'everything could be removed again' $false $_.Exception.Message }
  $process.StandardInput.Close()
  if (-not $process.WaitForExit(10000)) { $process.Kill() }
  [System.IO.File]::WriteAllLines((Join-Path $Report 'transcript.ndjson'), $transcript)
  [System.IO.File]::WriteAllText((Join-Path $Report 'checks.json'), (ConvertTo-Json -InputObject @($checks) -Depth 4))
  $failed = @($checks | Where-Object { -not $_.passed })
  Write-Host ([string]$checks.Count + ' checks, ' + [string]$failed.Count + ' failed. Report: ' + $Report)
  exit $(if ($failed.Count -eq 0) { 0 } else { 1 })
}

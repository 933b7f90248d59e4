# The worker of the hyperv source: Windows PowerShell 5.1, started once for each host.
# It reads one question a line and writes one answer a line, as JSON:
#   {"id":7,"op":"machine","args":{"vm":"…"}}
#   {"id":7,"ok":true,"value":{…}}   or   {"id":7,"ok":false,"error":{"kind":"refused","message":"…","returnValue":32774,"hresult":null}}
# 64-bit numbers are texts: JSON has none. What it is given is never made part of a query or of a script:
# instances are found by their keys, or by comparing. Nothing is read out of texts that Windows translates.
Set-StrictMode -Version 2
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$WarningPreference = 'SilentlyContinue'

$hyperv = 'root\virtualization\v2'
$cluster = 'root\MSCluster'
$guid = '^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$'
$utf8 = New-Object System.Text.UTF8Encoding $false
$questions = New-Object System.IO.StreamReader ([Console]::OpenStandardInput()), $utf8
$answers = New-Object System.IO.StreamWriter ([Console]::OpenStandardOutput()), $utf8
$answers.AutoFlush = $true
$serializer = [Microsoft.Management.Infrastructure.Serialization.CimSerializer]::Create()
$plain = [Microsoft.Management.Infrastructure.Serialization.InstanceSerializationOptions]::None

# Kinds: refused, not-found, failed.
function Stop-Question([string]$kind, [string]$message, $returnValue, $hresult = $null) {
  $exception = New-Object System.InvalidOperationException $message
  $exception.Data['kind'] = $kind
  $exception.Data['returnValue'] = $returnValue
  $exception.Data['hresult'] = $hresult
  throw $exception
}

# A property that this release of Windows may not have.
function Get-Value($instance, [string]$name, $otherwise) {
  $property = $instance.CimInstanceProperties[$name]
  if ($null -eq $property -or $null -eq $property.Value) { return $otherwise }
  return $property.Value
}

# What a method gave back beside its return value; where there is nothing, it may not even have the name.
function Get-Out($result, [string]$name, $otherwise) {
  $property = $result.PSObject.Properties[$name]
  if ($null -eq $property -or $null -eq $property.Value) { return $otherwise }
  return $property.Value
}

function ConvertTo-Time($date) {
  if ($null -eq $date) { $date = Get-Date }
  return $date.ToUniversalTime().ToString('o', [System.Globalization.CultureInfo]::InvariantCulture)
}

# WMI takes an instance as text; the serializer gives its UTF-16 bytes.
function ConvertTo-Embedded($instance) {
  return [System.Text.Encoding]::Unicode.GetString($serializer.Serialize($instance, $plain))
}

function Get-HypervService([string]$class) {
  return Get-CimInstance -Namespace $hyperv -ClassName $class | Select-Object -First 1
}

# By its key alone.
function Get-Keyed([string]$class, [string]$instanceId) {
  if ([string]::IsNullOrEmpty($instanceId)) { Stop-Question 'not-found' 'nothing was named' $null }
  $bare = New-CimInstance -Namespace $hyperv -ClassName $class -Property @{ InstanceID = $instanceId } -Key @('InstanceID') -ClientOnly
  return Get-CimInstance -InputObject $bare
}

function Get-Machine([string]$vm) {
  if ($vm -notmatch $guid) { Stop-Question 'failed' 'a machine is named by its GUID' $null }
  $keys = @{ CreationClassName = 'Msvm_ComputerSystem'; Name = $vm.ToUpperInvariant() }
  $bare = New-CimInstance -Namespace $hyperv -ClassName Msvm_ComputerSystem -Property $keys -Key @('CreationClassName', 'Name') -ClientOnly
  return Get-CimInstance -InputObject $bare
}

function Get-Related($instance, [string]$association, [string]$class) {
  if ($association -eq '') { return @(Get-CimAssociatedInstance -InputObject $instance -ResultClassName $class) }
  return @(Get-CimAssociatedInstance -InputObject $instance -Association $association -ResultClassName $class)
}

# Of a class that this release of Windows may not have.
function Get-RelatedIfKnown($instance, [string]$class) {
  try { return Get-Related $instance '' $class | Select-Object -First 1 }
  catch [Microsoft.Management.Infrastructure.CimException] { return $null }
}

# Where a disk is attached: what follows the identity of the machine, or of its checkpoint.
function Get-DiskKey([string]$instanceId) {
  $at = $instanceId.IndexOf('\')
  if ($at -lt 0) { return $instanceId }
  return $instanceId.Substring($at + 1)
}

# A reference to another instance is a path of WMI, with its key in quotes and each backslash doubled.
function Get-ReferencedId([string]$path) {
  $begin = $path.IndexOf('InstanceID=' + [char]34)
  if ($begin -lt 0) { return '' }
  return $path.Substring($begin + 12).TrimEnd([char]34).Replace('\\', '\')
}

function Get-Label($drive, $controllers) {
  $parent = Get-ReferencedId ([string](Get-Value $drive 'Parent' ''))
  $slot = [string](Get-Value $drive 'AddressOnParent' '0')
  $scsi = @($controllers | Where-Object { $_.ResourceSubType -eq 'Microsoft:Hyper-V:Synthetic SCSI Controller' } | Sort-Object -Property InstanceID)
  for ($i = 0; $i -lt $scsi.Count; $i++) {
    if ($scsi[$i].InstanceID -eq $parent) { return 'scsi' + $i + ':' + $slot }
  }
  foreach ($controller in $controllers) {
    if ($controller.InstanceID -ne $parent) { continue }
    if ($controller.ResourceSubType -eq 'Microsoft:Hyper-V:Emulated IDE Controller') { return 'ide' + [string](Get-Value $controller 'Address' '0') + ':' + $slot }
  }
  return 'disk:' + $slot
}

function ConvertTo-Document([string]$text) {
  $document = New-Object System.Xml.XmlDocument
  $document.XmlResolver = $null
  $document.LoadXml($text)
  return $document
}

# The size of a disk in use can't be read from its file.
function Get-Capacity([string]$path) {
  try {
    $service = Get-HypervService 'Msvm_ImageManagementService'
    $result = Invoke-CimMethod -InputObject $service -MethodName GetVirtualHardDiskSettingData -Arguments @{ Path = $path }
    $settings = [string](Get-Out $result 'SettingData' '')
    if ($result.ReturnValue -ne 0 -or $settings -eq '') { return $null }
    $document = ConvertTo-Document $settings
    foreach ($property in $document.GetElementsByTagName('PROPERTY')) {
      if ($property.GetAttribute('NAME') -eq 'MaxInternalSize') { return [string]$property.InnerText.Trim() }
    }
  }
  catch { return $null }
  return $null
}

function Get-Disks($settings, [bool]$sizes) {
  $resources = @(Get-Related $settings 'Msvm_VirtualSystemSettingDataComponent' 'Msvm_ResourceAllocationSettingData')
  $storage = @(Get-Related $settings 'Msvm_VirtualSystemSettingDataComponent' 'Msvm_StorageAllocationSettingData')
  $disks = @()
  foreach ($disk in $storage) {
    if ($disk.ResourceSubType -ne 'Microsoft:Hyper-V:Virtual Hard Disk') { continue }
    $parent = Get-ReferencedId ([string](Get-Value $disk 'Parent' ''))
    $drive = $resources | Where-Object { $_.InstanceID -eq $parent } | Select-Object -First 1
    $path = [string](@(Get-Value $disk 'HostResource' @(''))[0])
    $label = 'disk'
    if ($null -ne $drive) { $label = Get-Label $drive $resources }
    $capacity = $null
    if ($sizes) { $capacity = Get-Capacity $path }
    $disks += @{
      key = Get-DiskKey $disk.InstanceID; label = $label; path = $path; capacityBytes = $capacity
      passThrough = $false; shared = [bool](Get-Value $disk 'PersistentReservationsSupported' $false)
    }
  }
  foreach ($drive in $resources) {
    if ($drive.ResourceSubType -ne 'Microsoft:Hyper-V:Physical Disk Drive') { continue }
    $disks += @{
      key = Get-DiskKey $drive.InstanceID; label = Get-Label $drive $resources; path = [string](@(Get-Value $drive 'HostResource' @(''))[0])
      capacityBytes = $null; passThrough = $true; shared = $false
    }
  }
  # What lies behind such a port is seen by the guest alone.
  $ports = @(Get-Related $settings '' 'CIM_ResourceAllocationSettingData' | Where-Object { (Get-Value $_ 'ResourceSubType' '') -eq 'Microsoft:Hyper-V:Synthetic FiberChannel Port' })
  for ($i = 0; $i -lt $ports.Count; $i++) {
    $disks += @{
      key = Get-DiskKey $ports[$i].InstanceID; label = 'fc' + $i; path = ''; capacityBytes = $null; passThrough = $true; shared = $false
    }
  }
  return $disks
}

# By association, or where this release has none, by the machine in the identity.
function Get-MergeSettings($settings) {
  $merging = Get-RelatedIfKnown $settings 'Msvm_DiskMergeSettingData'
  if ($null -ne $merging) { return $merging }
  $vm = [string](Get-Value $settings 'VirtualSystemIdentifier' '')
  if ($vm -notmatch $guid) { return $null }
  try {
    $all = @(Get-CimInstance -Namespace $hyperv -ClassName Msvm_DiskMergeSettingData)
    return $all | Where-Object { $_.InstanceID.IndexOf($vm, [StringComparison]::OrdinalIgnoreCase) -ge 0 } | Select-Object -First 1
  }
  catch [Microsoft.Management.Infrastructure.CimException] { return $null }
}

function Get-Checkpoint($snapshot) {
  return @{
    id = [string]$snapshot.InstanceID; name = [string]$snapshot.ElementName
    recovery = [bool]($snapshot.VirtualSystemType -eq 'Microsoft:Hyper-V:Snapshot:Recovery')
    createdAt = ConvertTo-Time $snapshot.CreationTime
  }
}

# Two lists that belong together by their places; the order of the machine's disks is another one.
function Get-ReferencePoint($point) {
  $keys = @(Get-Value $point 'VirtualDiskIdentifiers' @())
  $tracking = @(Get-Value $point 'ResilientChangeTrackingIdentifiers' @())
  $disks = @()
  if ($keys.Count -eq $tracking.Count) {
    for ($i = 0; $i -lt $keys.Count; $i++) { $disks += @{ key = Get-DiskKey ([string]$keys[$i]); tracking = [string]$tracking[$i] } }
  }
  return @{ id = [string]$point.InstanceID; disks = @($disks) }
}

function Get-State($machine, [bool]$sizes) {
  $settings = Get-Related $machine 'Msvm_SettingsDefineState' 'Msvm_VirtualSystemSettingData' | Select-Object -First 1
  $merging = Get-MergeSettings $settings
  $security = Get-RelatedIfKnown $settings 'Msvm_SecuritySettingData'
  $processor = Get-Related $settings '' 'Msvm_ProcessorSettingData' | Select-Object -First 1
  $memory = Get-Related $settings '' 'Msvm_MemorySettingData' | Select-Object -First 1
  $quiescing = Get-RelatedIfKnown $machine 'Msvm_VssComponent'
  $generation = 1
  if ((Get-Value $settings 'VirtualSystemSubType' '') -eq 'Microsoft:Hyper-V:SubType:2') { $generation = 2 }
  $mergesDisks = $true
  if ($null -ne $merging) { $mergesDisks = ([int](Get-Value $merging 'EnabledState' 1) -eq 1) }
  $tpm = $false
  if ($null -ne $security) { $tpm = [bool](Get-Value $security 'TpmEnabled' $false) }
  $processors = 0
  if ($null -ne $processor) { $processors = [int](Get-Value $processor 'VirtualQuantity' 0) }
  $memoryMiB = '0'
  if ($null -ne $memory) { $memoryMiB = [string](Get-Value $memory 'VirtualQuantity' 0) }
  $quiesces = $false
  if ($null -ne $quiescing) { $quiesces = (@(Get-Value $quiescing 'OperationalStatus' @(0))[0] -eq 2) }
  $snapshots = @(Get-Related $machine 'Msvm_SnapshotOfVirtualSystem' 'Msvm_VirtualSystemSettingData')
  $points = @(Get-Related $machine 'Msvm_ReferencePointOfVirtualSystem' 'Msvm_VirtualSystemReferencePoint')
  return @{
    id = ([string]$machine.Name).ToLowerInvariant(); name = [string]$machine.ElementName
    version = [string](Get-Value $settings 'Version' '0'); generation = $generation
    state = [int]$machine.EnabledState; status = @(Get-Value $machine 'OperationalStatus' @() | ForEach-Object { [int]$_ })
    replication = [int](Get-Value $machine 'ReplicationState' 0)
    owner = $null; node = [string]$env:COMPUTERNAME; now = ConvertTo-Time $null
    mergesDisks = $mergesDisks; secureBoot = [bool](Get-Value $settings 'SecureBootEnabled' $false); tpm = $tpm
    processors = $processors; memoryMiB = $memoryMiB; quiesces = $quiesces
    disks = @(Get-Disks $settings $sizes)
    checkpoints = @($snapshots | ForEach-Object { Get-Checkpoint $_ })
    referencePoints = @($points | ForEach-Object { Get-ReferencePoint $_ })
  }
}

# Of a machine that another node of the cluster has: who that is, and nothing else.
function Get-Elsewhere([string]$vm) {
  $owner = $null
  try {
    foreach ($resource in @(Get-CimInstance -Namespace $cluster -ClassName MSCluster_Resource)) {
      if ($resource.Type -ne 'Virtual Machine') { continue }
      $private = Get-Value $resource 'PrivateProperties' $null
      if ($null -ne $private -and [string](Get-Value $private 'VmID' '') -eq $vm) { $owner = [string](Get-Value $resource 'OwnerNode' '') }
    }
  }
  catch { $owner = $null }
  if ($null -eq $owner -or $owner -eq '' -or $owner -eq $env:COMPUTERNAME) { Stop-Question 'not-found' 'there is no such machine on this host' 32779 }
  return @{
    id = $vm; name = ''; version = '0'; generation = 1; state = 0; status = @(); replication = 0; owner = $owner; node = [string]$env:COMPUTERNAME
    now = ConvertTo-Time $null; mergesDisks = $true; secureBoot = $false; tpm = $false; processors = 0; memoryMiB = '0'; quiesces = $false
    disks = @(); checkpoints = @(); referencePoints = @()
  }
}

function Get-MachineOrElsewhere($asked) {
  $machine = $null
  try { $machine = Get-Machine $asked.vm }
  catch [Microsoft.Management.Infrastructure.CimException] {
    if ($_.Exception.NativeErrorCode -ne [Microsoft.Management.Infrastructure.NativeErrorCode]::NotFound) { throw }
  }
  if ($null -eq $machine) { return Get-Elsewhere $asked.vm }
  return Get-State $machine ([bool]$asked.sizes)
}

function Get-Hello {
  $identity = [System.Security.Principal.WindowsIdentity]::GetCurrent()
  $principal = New-Object System.Security.Principal.WindowsPrincipal $identity
  $elevated = $principal.IsInRole([System.Security.Principal.WindowsBuiltInRole]::Administrator)
  $administrators = New-Object System.Security.Principal.SecurityIdentifier 'S-1-5-32-578'
  $system = Get-CimInstance -ClassName Win32_OperatingSystem
  $name = $null
  try { $name = [string](Get-CimInstance -Namespace $cluster -ClassName MSCluster_Cluster | Select-Object -First 1).Name }
  catch { $name = $null }
  return @{
    protocol = 1; powershell = $PSVersionTable.PSVersion.ToString(); host = [string]$env:COMPUTERNAME
    system = [string]$system.Caption + ', ' + [string]$system.Version; elevated = $elevated
    administersHyperv = ($elevated -or $principal.IsInRole($administrators)); cluster = $name; now = ConvertTo-Time $null
  }
}

# A method's answer: done, refused, or under way as a job.
function Get-Started($result, [string]$makes) {
  if ($result.ReturnValue -eq 4096) { return @{ job = [string]$result.Job.InstanceID; made = $null } }
  if ($result.ReturnValue -ne 0) { Stop-Question 'refused' '' ([int]$result.ReturnValue) }
  $made = $null
  $instance = $null
  if ($makes -ne '') { $instance = Get-Out $result $makes $null }
  if ($null -ne $instance) { $made = [string]$instance.InstanceID }
  return @{ job = $null; made = $made }
}

function Start-Checkpoint($asked) {
  $machine = Get-Machine $asked.vm
  $class = Get-CimClass -Namespace $hyperv -ClassName Msvm_VirtualSystemSnapshotSettingData
  $consistency = 2
  if ($asked.consistency -eq 'application') { $consistency = 1 }
  $properties = @{ ConsistencyLevel = [byte]$consistency; IgnoreNonSnapshottableDisks = $true; ElementName = [string]$asked.name }
  # A copy: the logs of databases stay for whoever prunes them. Server 2016 may not know the property.
  if ($null -ne $class.CimClassProperties['GuestBackupType']) { $properties['GuestBackupType'] = [byte]2 }
  $settings = New-CimInstance -CimClass $class -Property $properties -ClientOnly
  $service = Get-HypervService 'Msvm_VirtualSystemSnapshotService'
  $arguments = @{ AffectedSystem = $machine; SnapshotSettings = (ConvertTo-Embedded $settings); SnapshotType = [uint16]32768 }
  return Get-Started (Invoke-CimMethod -InputObject $service -MethodName CreateSnapshot -Arguments $arguments) 'ResultingSnapshot'
}

function Get-Documents($asked) {
  $settings = Get-Keyed 'Msvm_VirtualSystemSettingData' $asked.checkpoint
  $parts = @($settings)
  foreach ($class in @('Msvm_ResourceAllocationSettingData', 'Msvm_StorageAllocationSettingData', 'Msvm_ProcessorSettingData', 'Msvm_MemorySettingData', 'Msvm_SecuritySettingData', 'Msvm_EthernetPortAllocationSettingData', 'Msvm_SyntheticEthernetPortSettingData')) {
    try { $parts += @(Get-Related $settings '' $class) }
    catch [Microsoft.Management.Infrastructure.CimException] { continue }
  }
  return @{ documents = @($parts | ForEach-Object { @{ kind = [string]$_.CimClass.CimClassName; text = ConvertTo-Embedded $_ } }) }
}

# Jobs of the image service are of a class of their own; this one is above both.
function Find-Job([string]$id) {
  $job = Get-CimInstance -Namespace $hyperv -ClassName CIM_ConcreteJob | Where-Object { $_.InstanceID -eq $id } | Select-Object -First 1
  if ($null -eq $job) { Stop-Question 'not-found' 'Hyper-V does not know the job any more' 32779 }
  return $job
}

# The HRESULT that a failed job tells of: an argument of its message, which is the same in every language. Not every job has one.
function Get-JobResult($job) {
  try {
    $result = Invoke-CimMethod -InputObject $job -MethodName GetErrorEx
    foreach ($text in @(Get-Out $result 'Errors' @())) {
      $document = ConvertTo-Document ([string]$text)
      foreach ($list in $document.GetElementsByTagName('PROPERTY.ARRAY')) {
        if ($list.GetAttribute('NAME') -ne 'MessageArguments') { continue }
        foreach ($value in $list.GetElementsByTagName('VALUE')) {
          if ($value.InnerText.Trim() -match '^0x[0-9A-Fa-f]{8}$') { return $value.InnerText.Trim() }
        }
      }
    }
  }
  catch { return $null }
  return $null
}

function Get-JobState($asked) {
  $job = Find-Job $asked.job
  $made = @()
  $hresult = $null
  if ([int]$job.JobState -gt 7) { $hresult = Get-JobResult $job }
  if ([int]$job.JobState -eq 7) {
    foreach ($class in @('Msvm_VirtualSystemSettingData', 'Msvm_VirtualSystemReferencePoint')) {
      $made += @(Get-Related $job '' $class | ForEach-Object { [string]$_.InstanceID })
    }
  }
  return @{
    state = [int]$job.JobState; errorCode = [int](Get-Value $job 'ErrorCode' 0); hresult = $hresult
    description = [string](Get-Value $job 'ErrorDescription' ''); made = @($made)
  }
}

# States up to 6 are all under way; the agent asks again where this takes too long.
function Wait-Job([string]$id) {
  $job = Find-Job $id
  for ($i = 0; $i -lt 2000 -and [int]$job.JobState -le 6; $i++) {
    Start-Sleep -Milliseconds 250
    $job = Find-Job $id
  }
  if ([int]$job.JobState -eq 7) { return }
  Stop-Question 'refused' ([string](Get-Value $job 'ErrorDescription' '')) ([int](Get-Value $job 'ErrorCode' 0)) (Get-JobResult $job)
}

function Get-Changes($asked) {
  $service = Get-HypervService 'Msvm_ImageManagementService'
  # Without TargetSnapshotId, which is for VHD sets only.
  $arguments = @{
    Path = [string]$asked.path; LimitId = [string]$asked.since
    ByteOffset = [uint64]::Parse($asked.offset); ByteLength = [uint64]::Parse($asked.length)
  }
  $result = Invoke-CimMethod -InputObject $service -MethodName GetVirtualDiskChanges -Arguments $arguments
  if ($result.ReturnValue -eq 4096) { Wait-Job ([string]$result.Job.InstanceID) }
  elseif ($result.ReturnValue -ne 0) { Stop-Question 'refused' '' ([int]$result.ReturnValue) }
  $processed = Get-Out $result 'ProcessedByteLength' $null
  if ($null -eq $processed) { Stop-Question 'failed' 'the method ended, and did not say what changed' $null }
  return @{
    processed = [string]$processed
    offsets = @(Get-Out $result 'ChangedByteOffsets' @() | ForEach-Object { [string]$_ })
    lengths = @(Get-Out $result 'ChangedByteLengths' @() | ForEach-Object { [string]$_ })
  }
}

function Start-Conversion($asked) {
  $service = Get-HypervService 'Msvm_VirtualSystemSnapshotService'
  $arguments = @{ AffectedSnapshot = (Get-Keyed 'Msvm_VirtualSystemSettingData' $asked.checkpoint) }
  return Get-Started (Invoke-CimMethod -InputObject $service -MethodName ConvertToReferencePoint -Arguments $arguments) 'ResultingReferencePoint'
}

function Start-DestroyingCheckpoint($asked) {
  $service = Get-HypervService 'Msvm_VirtualSystemSnapshotService'
  $arguments = @{ AffectedSnapshot = (Get-Keyed 'Msvm_VirtualSystemSettingData' $asked.checkpoint) }
  return Get-Started (Invoke-CimMethod -InputObject $service -MethodName DestroySnapshot -Arguments $arguments) ''
}

function Start-DestroyingPoint($asked) {
  $service = Get-HypervService 'Msvm_VirtualSystemReferencePointService'
  $arguments = @{ AffectedReferencePoint = (Get-Keyed 'Msvm_VirtualSystemReferencePoint' $asked.referencePoint) }
  return Get-Started (Invoke-CimMethod -InputObject $service -MethodName DestroyReferencePoint -Arguments $arguments) ''
}

function Enable-Merging($asked) {
  $settings = Get-Related (Get-Machine $asked.vm) 'Msvm_SettingsDefineState' 'Msvm_VirtualSystemSettingData' | Select-Object -First 1
  $merging = Get-MergeSettings $settings
  if ($null -eq $merging) { return $null }
  $merging.CimInstanceProperties['EnabledState'].Value = [uint32]1
  $service = Get-HypervService 'Msvm_VirtualSystemManagementService'
  $result = Invoke-CimMethod -InputObject $service -MethodName ModifyDiskMergeSettings -Arguments @{ SettingData = (ConvertTo-Embedded $merging) }
  if ($result.ReturnValue -eq 4096) { Wait-Job ([string]$result.Job.InstanceID) }
  elseif ($result.ReturnValue -ne 0) { Stop-Question 'refused' '' ([int]$result.ReturnValue) }
  return $null
}

# The volume whose name is the longest beginning of the path; cluster shared volumes have folders as names.
function Get-FreeSpace($asked) {
  $volumes = @(Get-CimInstance -ClassName Win32_Volume | Where-Object { $null -ne $_.Name -and $null -ne $_.FreeSpace })
  $found = @()
  foreach ($path in @($asked.paths)) {
    $volume = $volumes | Where-Object { $path.StartsWith($_.Name, [StringComparison]::OrdinalIgnoreCase) } | Sort-Object -Property { $_.Name.Length } -Descending | Select-Object -First 1
    if ($null -ne $volume) { $found += @{ path = [string]$path; freeBytes = [string]$volume.FreeSpace } }
  }
  return @{ volumes = @($found) }
}

function Get-Machines {
  $machines = @(Get-CimInstance -Namespace $hyperv -ClassName Msvm_ComputerSystem | Where-Object { $_.Name -match $guid })
  return @{ machines = @($machines | ForEach-Object { Get-State $_ $true }) }
}

function Get-Answer($question) {
  $asked = $question.args
  switch ($question.op) {
    'hello' { return Get-Hello }
    'machines' { return Get-Machines }
    'machine' { return Get-MachineOrElsewhere $asked }
    'checkpoint' { return Start-Checkpoint $asked }
    'checkpoint-disks' { return @{ disks = @(Get-Disks (Get-Keyed 'Msvm_VirtualSystemSettingData' $asked.checkpoint) $false) } }
    'checkpoint-documents' { return Get-Documents $asked }
    'job' { return Get-JobState $asked }
    'changes' { return Get-Changes $asked }
    'convert' { return Start-Conversion $asked }
    'destroy-checkpoint' { return Start-DestroyingCheckpoint $asked }
    'destroy-reference-point' { return Start-DestroyingPoint $asked }
    'enable-merging' { return Enable-Merging $asked }
    'free-space' { return Get-FreeSpace $asked }
    default { Stop-Question 'failed' 'this worker knows no such question: agent and worker are of different releases' $null }
  }
}

function Get-Failure($exception) {
  $kind = 'failed'
  $returnValue = $null
  $hresult = '0x{0:X8}' -f $exception.HResult
  if ($exception.Data.Contains('kind')) {
    $kind = [string]$exception.Data['kind']
    $returnValue = $exception.Data['returnValue']
    $hresult = $exception.Data['hresult']
  }
  elseif ($exception -is [Microsoft.Management.Infrastructure.CimException]) {
    if ($exception.NativeErrorCode -eq [Microsoft.Management.Infrastructure.NativeErrorCode]::NotFound) { $kind = 'not-found' }
    else { $kind = 'refused' }
    # What WMI itself said, where it said it; the exception's own number is the same for all of them.
    if ([string]$exception.MessageId -match '^HRESULT (0x[0-9A-Fa-f]{8})$') { $hresult = $Matches[1] }
  }
  return @{ kind = $kind; message = [string]$exception.Message; returnValue = $returnValue; hresult = $hresult }
}

while ($null -ne ($line = $questions.ReadLine())) {
  $id = 0
  try {
    $question = $line | ConvertFrom-Json
    $id = $question.id
    $answer = @{ id = $id; ok = $true; value = (Get-Answer $question) }
    $text = $answer | ConvertTo-Json -Compress -Depth 12
  }
  catch {
    $text = @{ id = $id; ok = $false; error = (Get-Failure $_.Exception) } | ConvertTo-Json -Compress -Depth 12
  }
  $answers.WriteLine($text)
}

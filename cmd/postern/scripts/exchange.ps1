# --- Exchange Online: the permissions, limited to the members of a group (RBAC for Applications) ---
# Needs the module ExchangeOnlineManagement and the role Organization Management. A change takes 30 minutes to 2 hours.
# If Connect-ExchangeOnline complains about an assembly, another module has loaded an older one: run what follows in a new window,
# with $Name, $AppId and $SpId as printed above.
$Group = '@GROUP@'          # mail-enabled security group whose members Postern serves, shared mailboxes too; no nested groups

Connect-ExchangeOnline -ShowBanner:$false -ExchangeEnvironmentName @EXCHANGE_CLOUD@

if (-not (Get-DistributionGroup -Identity $Group -ErrorAction SilentlyContinue)) {
    New-DistributionGroup -Name "$Name mailboxes" -Type Security -PrimarySmtpAddress $Group | Out-Null
    Write-Host "Made the group $Group. Add members: Add-DistributionGroupMember -Identity $Group -Member ADDRESS"
}
$Dn = (Get-DistributionGroup -Identity $Group).DistinguishedName.Replace("'", "''")

# ObjectId is that of the enterprise application (service principal), not that of the app registration. Exchange may learn
# late of one that has just been made.
$Known = Get-ServicePrincipal -Identity $SpId -ErrorAction SilentlyContinue
for ($Try = 1; -not $Known; $Try++) {
    try {
        New-ServicePrincipal -AppId $AppId -ObjectId $SpId -DisplayName $Name -ErrorAction Stop | Out-Null
        $Known = $true
    } catch {
        if ($Try -ge 6) { throw }
        Write-Host 'Exchange does not know the application yet, trying again in 20 s ...'
        Start-Sleep -Seconds 20
    }
}
if (-not (Get-ManagementScope -Identity "$Name mailboxes" -ErrorAction SilentlyContinue)) {
    New-ManagementScope -Name "$Name mailboxes" -RecipientRestrictionFilter "MemberOfGroup -eq '$Dn'" | Out-Null
}
foreach ($Role in 'Mail.ReadWrite', 'Mail.Send') {
    if (-not (Get-ManagementRoleAssignment -Identity "$Name $Role" -ErrorAction SilentlyContinue)) {
        New-ManagementRoleAssignment -Name "$Name $Role" -App $SpId -Role "Application $Role" -CustomResourceScope "$Name mailboxes" | Out-Null
    }
}

# Try it, past the cache: InScope must be True for a member of the group, and False for others.
#   Test-ServicePrincipalAuthorization -Identity $SpId -Resource alice@contoso.example

# The older way, for tenants where roles cannot be assigned to apps: grant the permissions tenant-wide (see above), then
#   New-ApplicationAccessPolicy -AppId $AppId -PolicyScopeGroupId $Group -AccessRight RestrictAccess -Description 'Postern'
#   Test-ApplicationAccessPolicy -AppId $AppId -Identity alice@contoso.example
# Do not use both ways at once.

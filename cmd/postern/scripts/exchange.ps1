# --- Exchange Online: the permissions, limited to the members of a group (RBAC for Applications) ---
# Needs the module ExchangeOnlineManagement and the role Organization Management. A change takes 30 minutes to 2 hours.
$Group = '@GROUP@'          # mail-enabled security group whose members Postern serves, shared mailboxes too

Connect-ExchangeOnline -ShowBanner:$false

if (-not (Get-DistributionGroup -Identity $Group -ErrorAction SilentlyContinue)) {
    New-DistributionGroup -Name 'Postern mailboxes' -Type Security -PrimarySmtpAddress $Group | Out-Null
    Write-Host "Made the group $Group. Add members: Add-DistributionGroupMember -Identity $Group -Member ADDRESS"
}
$Dn = (Get-DistributionGroup -Identity $Group).DistinguishedName

# ObjectId is that of the enterprise application (service principal), not that of the app registration.
New-ServicePrincipal -AppId $AppId -ObjectId $SpId -DisplayName 'Postern'
New-ManagementScope -Name 'Postern mailboxes' -RecipientRestrictionFilter "MemberOfGroup -eq '$Dn'"
New-ManagementRoleAssignment -Name 'Postern read'  -App $SpId -Role 'Application Mail.ReadWrite' -CustomResourceScope 'Postern mailboxes'
New-ManagementRoleAssignment -Name 'Postern send'  -App $SpId -Role 'Application Mail.Send'      -CustomResourceScope 'Postern mailboxes'

# Try it, past the cache: InScope must be True for a member of the group, and False for others.
#   Test-ServicePrincipalAuthorization -Identity $SpId -Resource alice@contoso.example

# The older way, for tenants where roles cannot be assigned to apps: grant the permissions tenant-wide (see above), then
#   New-ApplicationAccessPolicy -AppId $AppId -PolicyScopeGroupId $Group -AccessRight RestrictAccess -Description 'Postern'
#   Test-ApplicationAccessPolicy -AppId $AppId -Identity alice@contoso.example
# Do not use both ways at once.

# Registers Postern in Entra with Microsoft Graph PowerShell, and lets it reach the mailboxes of one group only.
# Read it before you run it. Needs the modules Microsoft.Graph.Authentication, Microsoft.Graph.Applications and
# ExchangeOnlineManagement, and an administrator who may register apps and assign roles in Exchange.
$ErrorActionPreference = 'Stop'

$TenantWide  = $false            # $true: every mailbox of the tenant, by admin consent; $false: only the group below
$Certificate = '@CERTIFICATE@'   # certificate file (PEM or CER, without the key) to upload; '' makes a client secret

Connect-MgGraph -NoWelcome -Scopes 'Application.ReadWrite.All', 'AppRoleAssignment.ReadWrite.All'

# --- the app registration and its enterprise application ---
$App = New-MgApplication -DisplayName 'Postern' -SignInAudience 'AzureADMyOrg'
$AppId = $App.AppId
$SpId = (New-MgServicePrincipal -AppId $AppId).Id

# --- what it signs in with ---
if ($Certificate) {
    $Cert = [System.Security.Cryptography.X509Certificates.X509Certificate2]::new((Resolve-Path $Certificate).Path)
    Update-MgApplication -ApplicationId $App.Id -KeyCredentials @(@{
        Type = 'AsymmetricX509Cert'; Usage = 'Verify'; Key = $Cert.RawData; DisplayName = 'Postern' })
    $Secret = $null
} else {
    $Secret = Add-MgApplicationPassword -ApplicationId $App.Id -PasswordCredential @{
        DisplayName = 'Postern'; EndDateTime = (Get-Date).AddYears(1) }
}

# --- permissions for the whole tenant, only if wanted: with these, the group below limits nothing ---
if ($TenantWide) {
    $Graph = Get-MgServicePrincipal -Filter "appId eq '00000003-0000-0000-c000-000000000000'"
    $Roles = 'e2a3a72e-5f79-4c64-b1b1-878b674786c9',   # Mail.ReadWrite
             'b633e1c5-b582-4048-a93e-9f11b44c7e96'    # Mail.Send
    # Listed on the registration too, so that the portal shows them under API permissions.
    Update-MgApplication -ApplicationId $App.Id -RequiredResourceAccess @(@{
        ResourceAppId  = '00000003-0000-0000-c000-000000000000'
        ResourceAccess = @($Roles | ForEach-Object { @{ Id = $_; Type = 'Role' } }) })
    foreach ($Role in $Roles) {
        New-MgServicePrincipalAppRoleAssignment -ServicePrincipalId $SpId -PrincipalId $SpId -ResourceId $Graph.Id -AppRoleId $Role | Out-Null
    }
} else {

@EXCHANGE@

}

# --- what postern setup asks for ---
Write-Host "Application (client) ID  $AppId"
Write-Host "Directory (tenant) ID    $((Get-MgContext).TenantId)"
if ($Secret) {
    Write-Host "Client secret            $($Secret.SecretText)"
    Write-Host "expires                  $($Secret.EndDateTime.ToString('yyyy-MM-dd'))"
}

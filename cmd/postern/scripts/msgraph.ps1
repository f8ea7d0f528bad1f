# Registers Postern in Entra with Microsoft Graph PowerShell, and lets it reach the mailboxes of one group only.
# Read it before you run it. It can be run again: what is there stays. Needs PowerShell 7, the modules
# Microsoft.Graph.Authentication, Microsoft.Graph.Applications and ExchangeOnlineManagement, and an administrator who may
# register apps and assign roles in Exchange.
$ErrorActionPreference = 'Stop'

$Name        = 'Postern'
$AppId       = '@CLIENT_ID@'     # an application or managed identity that is there already; '' registers a new one
$TenantWide  = $false            # $true: every mailbox of the tenant, by admin consent; $false: only the group below
$Certificate = '@CERTIFICATE@'   # certificate file (PEM or CER, without the key) to upload; '' makes a client secret

Connect-MgGraph -NoWelcome -Environment @GRAPH_CLOUD@ -Scopes 'Application.ReadWrite.All', 'AppRoleAssignment.ReadWrite.All'

# --- the app registration and its enterprise application ---
$New = -not $AppId
$App = $null
if ($AppId) {
    $App = Get-MgApplication -Filter "appId eq '$AppId'"      # none for a managed identity
    $SpId = (Get-MgServicePrincipal -Filter "appId eq '$AppId'").Id
} else {
    if (Get-MgApplication -Filter "displayName eq '$Name'") {
        throw "There is an application called $Name already: write its Application (client) ID into `$AppId, or choose another `$Name."
    }
    $App = New-MgApplication -DisplayName $Name -SignInAudience 'AzureADMyOrg'
    $AppId = $App.AppId
    $SpId = (New-MgServicePrincipal -AppId $AppId).Id
}
Write-Host "`$Name = '$Name'; `$AppId = '$AppId'; `$SpId = '$SpId'"

# --- what it signs in with ---
$Secret = $null
if ($Certificate -and $App.KeyCredentials) {
    throw 'The application has certificates already, which this script would take away: upload the new one in the portal, and empty $Certificate.'
}
if ($Certificate -and $App) {
    $Cert = [System.Security.Cryptography.X509Certificates.X509Certificate2]::new((Resolve-Path -Path $Certificate).Path)
    Update-MgApplication -ApplicationId $App.Id -KeyCredentials @(@{
        Type = 'AsymmetricX509Cert'; Usage = 'Verify'; Key = $Cert.RawData; DisplayName = $Name })
} elseif ($New) {
    $Secret = Add-MgApplicationPassword -ApplicationId $App.Id -PasswordCredential @{
        DisplayName = $Name; EndDateTime = (Get-Date).AddYears(1) }
}

# --- permissions for the whole tenant, only if wanted: with these, the group below limits nothing ---
if ($TenantWide) {
    $Graph = Get-MgServicePrincipal -Filter "appId eq '00000003-0000-0000-c000-000000000000'"
    $Roles = 'e2a3a72e-5f79-4c64-b1b1-878b674786c9',   # Mail.ReadWrite
             'b633e1c5-b582-4048-a93e-9f11b44c7e96'    # Mail.Send
    if ($New) {
        # Listed on the registration too, so that the portal shows them under API permissions.
        Update-MgApplication -ApplicationId $App.Id -RequiredResourceAccess @(@{
            ResourceAppId  = '00000003-0000-0000-c000-000000000000'
            ResourceAccess = @($Roles | ForEach-Object { @{ Id = $_; Type = 'Role' } }) })
    }
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

# Registers Postern in Entra with the Az PowerShell module, and lets it reach the mailboxes of one group only.
# Read it before you run it. It can be run again: what is there stays. Needs PowerShell 7, the modules Az.Accounts,
# Az.Resources and ExchangeOnlineManagement, and an administrator who may register apps and assign roles in Exchange.
$ErrorActionPreference = 'Stop'

$Name        = 'Postern'
$AppId       = '@CLIENT_ID@'     # an application or managed identity that is there already; '' registers a new one
$TenantWide  = $false            # $true: every mailbox of the tenant, by admin consent; $false: only the group below
$Certificate = '@CERTIFICATE@'   # certificate file (PEM or CER, without the key) to upload; '' makes a client secret

Connect-AzAccount -Environment @AZURE_CLOUD@ | Out-Null

# --- the app registration and its enterprise application ---
$New = -not $AppId
if ($AppId) {
    $SpId = (Get-AzADServicePrincipal -ApplicationId $AppId).Id
} else {
    if (Get-AzADApplication -DisplayName $Name) {
        throw "There is an application called $Name already: write its Application (client) ID into `$AppId, or choose another `$Name."
    }
    $AppId = (New-AzADApplication -DisplayName $Name -SignInAudience 'AzureADMyOrg').AppId
    $SpId = (New-AzADServicePrincipal -ApplicationId $AppId).Id
}
Write-Host "`$Name = '$Name'; `$AppId = '$AppId'; `$SpId = '$SpId'"

# --- what it signs in with; those it has stay ---
$Secret = $null
if ($Certificate) {
    $Cert = [System.Security.Cryptography.X509Certificates.X509Certificate2]::new((Resolve-Path -Path $Certificate).Path)
    New-AzADAppCredential -ApplicationId $AppId -CertValue ([Convert]::ToBase64String($Cert.RawData)) `
        -StartDate $Cert.NotBefore -EndDate $Cert.NotAfter | Out-Null
} elseif ($New) {
    $Secret = New-AzADAppCredential -ApplicationId $AppId -EndDate (Get-Date).AddYears(1)
}

# --- permissions for the whole tenant, only if wanted: with these, the group below limits nothing ---
if ($TenantWide) {
    $Graph = Get-AzADServicePrincipal -ApplicationId '00000003-0000-0000-c000-000000000000'
    foreach ($Role in 'e2a3a72e-5f79-4c64-b1b1-878b674786c9',     # Mail.ReadWrite
                      'b633e1c5-b582-4048-a93e-9f11b44c7e96') {   # Mail.Send
        # Listed on the registration, so that the portal shows it under API permissions, and granted.
        if ($New) {
            Add-AzADAppPermission -ApplicationId $AppId -ApiId '00000003-0000-0000-c000-000000000000' -PermissionId $Role -Type Role
        }
        New-AzADServicePrincipalAppRoleAssignment -ServicePrincipalId $SpId -ResourceId $Graph.Id -AppRoleId $Role | Out-Null
    }
} else {

@EXCHANGE@

}

# --- what postern setup asks for ---
Write-Host "Application (client) ID  $AppId"
Write-Host "Directory (tenant) ID    $((Get-AzContext).Tenant.Id)"
if ($Secret) {
    Write-Host "Client secret            $($Secret.SecretText)"
    Write-Host "expires                  $($Secret.EndDateTime.ToString('yyyy-MM-dd'))"
}

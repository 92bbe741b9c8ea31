{{- define "ringfence.labels" -}}
app.kubernetes.io/part-of: ringfence
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{- end }}

{{- /* Of one component: (dict "root" $ "component" "webhook") */ -}}
{{- define "ringfence.selector" -}}
app.kubernetes.io/name: ringfence-{{ .component }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end }}

{{- /* (dict "root" $ "image" .Values.webhook.image) */ -}}
{{- define "ringfence.image" -}}
{{- $common := .root.Values.image -}}
{{- $name := .image.repository -}}
{{- if $common.registry }}{{ $name = printf "%s/%s" (trimSuffix "/" $common.registry) $name }}{{ end -}}
{{- if .image.digest -}}
{{ printf "%s@%s" $name .image.digest }}
{{- else -}}
{{ printf "%s:%s" $name (.image.tag | default $common.tag | default .root.Chart.AppVersion) }}
{{- end -}}
{{- end }}

{{- /* Of both images, then of this one: (dict "root" $ "image" .Values.webhook.image) */ -}}
{{- define "ringfence.pullSecrets" -}}
{{- with concat (.root.Values.image.pullSecrets | default list) (.image.pullSecrets | default list) | uniq -}}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end }}

{{- define "ringfence.proxy" -}}
{{- with .Values.proxy -}}
{{- if .httpProxy }}
- {name: HTTP_PROXY, value: {{ .httpProxy | quote }}}
{{- end }}
{{- if .httpsProxy }}
- {name: HTTPS_PROXY, value: {{ .httpsProxy | quote }}}
{{- end }}
{{- if or .httpProxy .httpsProxy }}
{{- $none := list "127.0.0.1" "localhost" ".svc" ".cluster.local" "$(KUBERNETES_SERVICE_HOST)" .noProxy | compact }}
- {name: NO_PROXY, value: {{ join "," $none | quote }}}
{{- end }}
{{- end -}}
{{- end }}

{{- /* Pods of these never wait for the webhook: what it runs on and it itself. */ -}}
{{- define "ringfence.namespaceSelector" -}}
matchExpressions:
- key: kubernetes.io/metadata.name
  operator: NotIn
  values:
  {{- range concat (list "kube-system" .Release.Namespace) .Values.webhook.skipNamespaces | uniq }}
  - {{ . | quote }}
  {{- end }}
{{- end }}

{{- /* The server says it by its version, or by what it serves. */ -}}
{{- define "ringfence.platform" -}}
{{- $version := .Capabilities.KubeVersion.Version -}}
{{- if ne .Values.platform "auto" -}}{{ .Values.platform }}
{{- else if .Capabilities.APIVersions.Has "security.openshift.io/v1" -}}openshift
{{- else if .Capabilities.APIVersions.Has "auto.gke.io/v1" -}}gke-autopilot
{{- else if contains "-gke." $version -}}gke
{{- else if contains "-eks-" $version -}}eks
{{- else if or (contains "+k3s" $version) (contains "+rke2" $version) (.Capabilities.APIVersions.Has "k3s.cattle.io/v1") -}}k3s
{{- else -}}generic
{{- end -}}
{{- end }}

{{- /* Why it needs each: docs/install.md, Rights. */ -}}
{{- define "ringfence.capabilities" -}}
[BPF, DAC_OVERRIDE, KILL, NET_ADMIN, PERFMON, SYS_ADMIN, SYS_PTRACE]
{{- end }}

{{- define "ringfence.enforcerSecurity" -}}
readOnlyRootFilesystem: true
runAsUser: 0
{{- if .Values.runtimeSecurity.privileged }}
privileged: true
{{- else }}
capabilities:
  drop: [ALL]
  add: {{ include "ringfence.capabilities" . }}
seccompProfile: {type: RuntimeDefault}
# As privileged containers have it.
seLinuxOptions: {type: spc_t}
{{- if semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version }}
appArmorProfile: {type: Unconfined}
{{- end }}
{{- end }}
{{- end }}

{{- define "ringfence.runtimeKind" -}}
{{- .Values.runtimeSecurity.runtime.kind | default (ternary "cri" "containerd" (eq (include "ringfence.platform" .) "openshift")) -}}
{{- end }}

{{- define "ringfence.runtimeSocket" -}}
{{- $socket := "/run/containerd/containerd.sock" -}}
{{- if eq (include "ringfence.platform" .) "k3s" }}{{ $socket = "/run/k3s/containerd/containerd.sock" }}{{ end -}}
{{- if eq (include "ringfence.runtimeKind" .) "cri" }}{{ $socket = "/run/crio/crio.sock" }}{{ end -}}
{{- .Values.runtimeSecurity.runtime.socket | default $socket -}}
{{- end }}

{{- /* What can't be said in the schema. */ -}}
{{- define "ringfence.check" -}}
{{- if and (eq (include "ringfence.platform" .) "gke-autopilot") .Values.runtimeSecurity.enabled (not .Values.gkeAutopilot.allowlisted) -}}
{{- fail "platform gke-autopilot: its nodes refuse the enforcer's pod (privileged, hostPID, hostNetwork, hostPath) unless the cluster has a WorkloadAllowlist for it. Install one, then set gkeAutopilot.allowlisted=true; or set runtimeSecurity.enabled=false." -}}
{{- end -}}
{{- with .Values.webhook.certificate -}}
{{- if and (eq .source "secret") (or (not .secretName) (not .caBundle)) -}}
{{- fail "webhook.certificate.source is secret: set webhook.certificate.secretName and webhook.certificate.caBundle too" -}}
{{- end -}}
{{- end -}}
{{- /* Without that label the webhook would have to admit its own pods. A cluster that can't be asked has no namespaces. */ -}}
{{- if and (eq .Values.webhook.failurePolicy "Fail") (semverCompare "<1.21.0-0" .Capabilities.KubeVersion.Version) (lookup "v1" "Namespace" "" "kube-system") -}}
{{- range list "kube-system" .Release.Namespace -}}
{{- $namespace := lookup "v1" "Namespace" "" . | default dict -}}
{{- $labels := dig "metadata" "labels" dict $namespace | default dict -}}
{{- if ne (get $labels "kubernetes.io/metadata.name") . -}}
{{- fail (printf "webhook.failurePolicy is Fail, and this API server (before 1.21) does not label namespaces with their names: kubectl create namespace %[1]s unless it is there, then kubectl label namespace %[1]s kubernetes.io/metadata.name=%[1]s" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

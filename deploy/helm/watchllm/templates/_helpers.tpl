{{- define "watchllm.name" -}}
{{ .Release.Name }}-{{ .Chart.Name }}
{{- end -}}

{{- define "watchllm.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "watchllm.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "watchllm.image" -}}
image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end -}}

{{- define "watchllm.pod" -}}
automountServiceAccountToken: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "watchllm.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
volumeMounts:
  - { name: home, mountPath: /var/lib/watchllm }
  - { name: tmp, mountPath: /tmp }
{{- end -}}

{{- /* What every process is told; a proxy is told no more than this. */ -}}
{{- define "watchllm.env" -}}
- name: WATCHLLM_SECRET_KEY
  valueFrom: { secretKeyRef: { name: {{ .Values.secrets.existing | quote }}, key: WATCHLLM_SECRET_KEY } }
- name: WATCHLLM_SECRET_KEY_PREVIOUS
  valueFrom:
    secretKeyRef: { name: {{ .Values.secrets.existing | quote }}, key: WATCHLLM_SECRET_KEY_PREVIOUS, optional: true }
- name: WATCHLLM_REDIS_URL
  valueFrom: { secretKeyRef: { name: {{ .Values.secrets.existing | quote }}, key: WATCHLLM_REDIS_URL } }
- name: WATCHLLM_DRAIN_SECONDS
  value: {{ .Values.proxy.drainSeconds | quote }}
{{- range $name, $value := .Values.config }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{- define "watchllm.env.database" -}}
- name: WATCHLLM_DATABASE_URL
  valueFrom: { secretKeyRef: { name: {{ .Values.secrets.existing | quote }}, key: WATCHLLM_DATABASE_URL } }
- name: WATCHLLM_DATABASE_DIRECT_URL
  valueFrom:
    secretKeyRef: { name: {{ .Values.secrets.existing | quote }}, key: WATCHLLM_DATABASE_DIRECT_URL, optional: true }
- name: WATCHLLM_DATABASE_REPLICA_URL
  valueFrom:
    secretKeyRef: { name: {{ .Values.secrets.existing | quote }}, key: WATCHLLM_DATABASE_REPLICA_URL, optional: true }
{{- end -}}

{{- /* Whoever publishes needs the same plans and prices, and recorders the plans. After "watchllm.container". */ -}}
{{- define "watchllm.files.mounts" -}}
{{- if .Values.files.plans }}
- { name: files, mountPath: /var/lib/watchllm/plans.toml, subPath: plans.toml, readOnly: true }
{{- end }}
{{- if .Values.files.prices }}
- { name: files, mountPath: /var/lib/watchllm/prices.toml, subPath: prices.toml, readOnly: true }
{{- end }}
{{- end -}}

{{- define "watchllm.files.volume" -}}
- name: files
  configMap: { name: {{ include "watchllm.name" . }}-files }
{{- end -}}

{{- /* A mounted file does not change in a container that runs: pods are made anew when the files change. */ -}}
{{- define "watchllm.files.annotation" -}}
watchllm/files: {{ .Values.files | toJson | sha256sum }}
{{- end -}}

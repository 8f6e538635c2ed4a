# Made by 'fimctl describe fimctl.bash' of fimctl's own parser.
_fimctl() {
	local current=${COMP_WORDS[COMP_CWORD]} command=fimctl words= files= i
	for ((i = 1; i < COMP_CWORD; i++)); do
		case "$command ${COMP_WORDS[i]}" in
		'fimctl app'|'fimctl run'|'fimctl instance'|'fimctl instance list'|'fimctl instance exec'|'fimctl ps'|'fimctl stop'|'fimctl enter'|'fimctl status'|'fimctl prune'|'fimctl shutdown'|'fimctl stack'|'fimctl monitor'|'fimctl images'|'fimctl layers'|'fimctl image'|'fimctl image create'|'fimctl layer'|'fimctl layer create'|'fimctl layer add'|'fimctl layer commit'|'fimctl layer list'|'fimctl layer info'|'fimctl layer verify'|'fimctl layer extract'|'fimctl layer diff'|'fimctl layer remove'|'fimctl layer squash'|'fimctl layer export'|'fimctl upper'|'fimctl upper status'|'fimctl upper reset'|'fimctl data'|'fimctl data remove'|'fimctl data copy'|'fimctl data size'|'fimctl dwarfs'|'fimctl dwarfs info'|'fimctl dwarfs list'|'fimctl dwarfs check'|'fimctl dwarfs extract'|'fimctl dwarfs create'|'fimctl dwarfs mount'|'fimctl overlay'|'fimctl overlay set'|'fimctl overlay show'|'fimctl casefold'|'fimctl boot'|'fimctl boot set'|'fimctl boot show'|'fimctl boot clear'|'fimctl env'|'fimctl env add'|'fimctl env set'|'fimctl env del'|'fimctl env clear'|'fimctl env list'|'fimctl perms'|'fimctl perms add'|'fimctl perms del'|'fimctl perms set'|'fimctl perms clear'|'fimctl perms list'|'fimctl bind'|'fimctl bind add'|'fimctl bind del'|'fimctl bind list'|'fimctl unshare'|'fimctl unshare add'|'fimctl unshare del'|'fimctl unshare set'|'fimctl unshare clear'|'fimctl unshare list'|'fimctl desktop'|'fimctl desktop install'|'fimctl desktop uninstall'|'fimctl desktop list'|'fimctl desktop setup'|'fimctl desktop enable'|'fimctl desktop dump'|'fimctl desktop clean'|'fimctl notify'|'fimctl version'|'fimctl describe'|'fimctl setup'|'fimctl settings'|'fimctl logs'|'fimctl doctor') command+=" ${COMP_WORDS[i]}" ;;
		esac
	done
	case $command in
	'fimctl') words='app run instance ps stop enter status prune shutdown stack monitor images layers image layer upper data dwarfs overlay casefold boot env perms bind unshare desktop notify version describe setup settings logs doctor -h --help --version' ;;
	'fimctl app') words='-h --help' files=1 ;;
	'fimctl run') words='-h --help --root --overlay --casefold --layer --data --all-bindings --no-sandbox --wait' files=1 ;;
	'fimctl instance') words='list exec -h --help' ;;
	'fimctl instance list') words='-h --help' files=1 ;;
	'fimctl instance exec') words='-h --help' files=1 ;;
	'fimctl ps') words='-h --help --json' files=1 ;;
	'fimctl stop') words='-h --help --timeout' files=1 ;;
	'fimctl enter') words='-h --help' files=1 ;;
	'fimctl status') words='-h --help --json' files=1 ;;
	'fimctl prune') words='-h --help' files=1 ;;
	'fimctl shutdown') words='-h --help --kill --timeout' files=1 ;;
	'fimctl stack') words='-h --help --json' files=1 ;;
	'fimctl monitor') words='-h --help --json' files=1 ;;
	'fimctl images') words='-h --help --json' files=1 ;;
	'fimctl layers') words='-h --help --json' files=1 ;;
	'fimctl image') words='create -h --help' ;;
	'fimctl image create') words='-h --help -f --force -l --level --layer' files=1 ;;
	'fimctl layer') words='create add commit list info verify extract diff remove squash export -h --help' ;;
	'fimctl layer create') words='-h --help --files' files=1 ;;
	'fimctl layer add') words='-h --help --wait' files=1 ;;
	'fimctl layer commit') words='-h --help binary layer file --wait' files=1 ;;
	'fimctl layer list') words='-h --help --json' files=1 ;;
	'fimctl layer info') words='-h --help --json' files=1 ;;
	'fimctl layer verify') words='-h --help' files=1 ;;
	'fimctl layer extract') words='-h --help -o --output' files=1 ;;
	'fimctl layer diff') words='-h --help --json' files=1 ;;
	'fimctl layer remove') words='-h --help -y --yes --wait' files=1 ;;
	'fimctl layer squash') words='-h --help --wait' files=1 ;;
	'fimctl layer export') words='-h --help' files=1 ;;
	'fimctl upper') words='status reset -h --help' ;;
	'fimctl upper status') words='-h --help --json' files=1 ;;
	'fimctl upper reset') words='-h --help -y --yes --wait' files=1 ;;
	'fimctl data') words='remove copy size -h --help' ;;
	'fimctl data remove') words='-h --help -y --yes --wait' files=1 ;;
	'fimctl data copy') words='-h --help --wait' files=1 ;;
	'fimctl data size') words='-h --help --json' files=1 ;;
	'fimctl dwarfs') words='info list check extract create mount -h --help' ;;
	'fimctl dwarfs info') words='-h --help -O --image-offset --image-size --json' files=1 ;;
	'fimctl dwarfs list') words='-h --help -O --image-offset --image-size --json -l --long' files=1 ;;
	'fimctl dwarfs check') words='-h --help -O --image-offset --image-size --json --content' files=1 ;;
	'fimctl dwarfs extract') words='-h --help -O --image-offset --image-size --json -o --output' files=1 ;;
	'fimctl dwarfs create') words='-h --help -i --input -o --output -f --force -l --compress-level --input-list --set-owner --set-group --threads --subsecond --sparse --no-sparse --skip-unreadable --no-progress --json' files=1 ;;
	'fimctl dwarfs mount') words='-h --help -O --image-offset --image-size --json -f --foreground --uid --gid --allow-other --cache-size' files=1 ;;
	'fimctl overlay') words='set show -h --help' ;;
	'fimctl overlay set') words='-h --help bwrap overlayfs unionfs' files=1 ;;
	'fimctl overlay show') words='-h --help' files=1 ;;
	'fimctl casefold') words='-h --help on off preserve' files=1 ;;
	'fimctl boot') words='set show clear -h --help' ;;
	'fimctl boot set') words='-h --help' files=1 ;;
	'fimctl boot show') words='-h --help' files=1 ;;
	'fimctl boot clear') words='-h --help' files=1 ;;
	'fimctl env') words='add set del clear list -h --help' ;;
	'fimctl env add') words='-h --help' files=1 ;;
	'fimctl env set') words='-h --help' files=1 ;;
	'fimctl env del') words='-h --help' files=1 ;;
	'fimctl env clear') words='-h --help' files=1 ;;
	'fimctl env list') words='-h --help' files=1 ;;
	'fimctl perms') words='add del set clear list -h --help' ;;
	'fimctl perms add') words='-h --help' files=1 ;;
	'fimctl perms del') words='-h --help' files=1 ;;
	'fimctl perms set') words='-h --help' files=1 ;;
	'fimctl perms clear') words='-h --help' files=1 ;;
	'fimctl perms list') words='-h --help' files=1 ;;
	'fimctl bind') words='add del list -h --help' ;;
	'fimctl bind add') words='-h --help ro rw dev' files=1 ;;
	'fimctl bind del') words='-h --help' files=1 ;;
	'fimctl bind list') words='-h --help' files=1 ;;
	'fimctl unshare') words='add del set clear list -h --help' ;;
	'fimctl unshare add') words='-h --help' files=1 ;;
	'fimctl unshare del') words='-h --help' files=1 ;;
	'fimctl unshare set') words='-h --help' files=1 ;;
	'fimctl unshare clear') words='-h --help' files=1 ;;
	'fimctl unshare list') words='-h --help' files=1 ;;
	'fimctl desktop') words='install uninstall list setup enable dump clean -h --help' ;;
	'fimctl desktop install') words='-h --help' files=1 ;;
	'fimctl desktop uninstall') words='-h --help' files=1 ;;
	'fimctl desktop list') words='-h --help --json' files=1 ;;
	'fimctl desktop setup') words='-h --help' files=1 ;;
	'fimctl desktop enable') words='-h --help' files=1 ;;
	'fimctl desktop dump') words='-h --help entry mimetype icon' files=1 ;;
	'fimctl desktop clean') words='-h --help' files=1 ;;
	'fimctl notify') words='-h --help on off' files=1 ;;
	'fimctl version') words='-h --help short full deps' files=1 ;;
	'fimctl describe') words='-h --help fimctl.bash _fimctl fimctl.fish fimctl.1 flatimage.7' files=1 ;;
	'fimctl setup') words='-h --help --remove' files=1 ;;
	'fimctl settings') words='-h --help --json' files=1 ;;
	'fimctl logs') words='-h --help -f --follow -n --lines --json' files=1 ;;
	'fimctl doctor') words='-h --help --json' files=1 ;;
	esac
	mapfile -t COMPREPLY < <(
		compgen -W "$words" -- "$current"
		[[ -n $files ]] && compgen -f -- "$current"
	)
}
complete -o filenames -F _fimctl fimctl

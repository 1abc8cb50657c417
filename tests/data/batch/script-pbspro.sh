#!/bin/sh
#PBS -N fit
#PBS -l nodes=2:ppn=4
#PBS -l walltime=01:00:01
#PBS -l mem=2gb
#PBS -q long
#PBS -A phys
#PBS -o /home/mara/fit.out
#PBS -e /home/mara/fit.err
#PBS -W depend=afterany:12
#PBS -r n
#PBS -V
#PBS -m abe

cd '/tmp/a b' || exit 1
export A='it'"'"'s "x,y"
$HOME'
echo done
# submitted by: qsub -f SCRIPT

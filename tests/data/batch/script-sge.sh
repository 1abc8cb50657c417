#!/bin/sh
#$ -N fit
#$ -S /bin/sh
#$ -notify
#$ -pe mpi 8
#$ -l h_rt=01:00:01
#$ -l mem=2gb
#$ -q long
#$ -P phys
#$ -o /home/mara/fit.out
#$ -e /home/mara/fit.err
#$ -hold_jid 12
#$ -r n
#$ -V
#PBS -m abe

cd '/tmp/a b' || exit 1
export A='it'"'"'s "x,y"
$HOME'
echo done
# submitted by: qsub -terse SCRIPT
